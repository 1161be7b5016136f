# SPDX-License-Identifier: MIT
"""One writer per file: an advisory lock that says who holds it and dies with its process.

The lock is an flock on a file beside the locked one, never on the file itself: SQLite keeps POSIX locks there,
and closing any other descriptor of the same file would silently drop them. The side file stays when the lock
goes, because removing it would let two writers lock two different files of the same name.
"""

import errno
import fcntl
import os
from pathlib import Path

from bus.errors import StorageError


class PathLock:
    """The lock on `path`, held from its making until `release`.

    Raises StorageError, naming the process that holds it, if it is held; and if no lock can be made there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._side = _side_of(path)
        try:
            self._descriptor = os.open(self._side, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise StorageError(
                f"{path} cannot be written ({self._side.name}: {error.strerror}): "
                "make its directory writable for this user, or choose another file"
            ) from error
        try:
            self._lock()
        except BaseException:
            os.close(self._descriptor)
            raise

    def release(self) -> None:
        """Let others write. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                f"{self.path} is being written by {self._holder()}: stop that one, or choose another file"
            ) from None
        except OSError as error:
            raise StorageError(
                f"{self.path} cannot be locked ({error.strerror}): choose a file on a file system that has locks"
            ) from error
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)
        except OSError as error:
            # The number is for people; a full disk must not keep the lock from being taken.
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise

    def _holder(self) -> str:
        return _holder(self._descriptor)


def holder_of(path: Path) -> str | None:
    """Who holds the lock on `path`, for people; None if nobody does, or it cannot be found out."""
    try:
        descriptor = os.open(_side_of(path), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(descriptor)
    except OSError:
        return None
    else:
        return None
    finally:
        os.close(descriptor)


def _side_of(path: Path) -> Path:
    """The side file: the same one whatever links lead to the file."""
    real = Path(os.path.realpath(path))
    return real.with_name(real.name + ".lock")


def _holder(descriptor: int) -> str:
    words = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
    if not words.isdecimal():
        return "another process"  # it has the lock, and has not yet written its number
    return "this process already" if int(words) == os.getpid() else f"process {words}"
