# SPDX-License-Identifier: MIT
"""PostgreSQL's errors as ours: which pass by themselves, and what would be right.

The codes are SQLSTATE (PostgreSQL manual, appendix A): two characters of class, three of condition.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from bus.errors import StorageBusy, StorageError
from sinks.postgres.address import Address

_PASSING_CLASSES = {
    "08": "was cut off",
    "40": "had to undo a transaction, which is tried again",
    "53": "lacks something",
    "55": "is used by another program for now",
    "57": "is being stopped or started, or was told to end what it did",
    "58": "has trouble with its disk",
}
_PASSING = {
    "25006": "is read-only for now: a standby, or set so",
    "53100": "has a full disk: free some space",
    "53300": "has no connection left: see to max_connections",
}
_LASTING = {
    "28P01": "refuses the password: set POSTGRES_PASSWORD, or see to ~/.pgpass",
    "28000": "does not let this user in: see to POSTGRES_USER, and to the server's pg_hba.conf",
    "3D000": "does not exist: make it with createdb, or see to POSTGRES_DB",
    "42501": "lacks a right for this user: one who owns the database may GRANT CREATE ON DATABASE ... TO ...",
    "0A000": "is of a version that cannot be used",
}


@contextmanager
def explained(address: Address) -> Iterator[None]:
    """Turn an error about the database into StorageBusy, if it may pass, or StorageError."""
    import asyncpg

    try:
        yield
    except asyncpg.PostgresError as error:
        raise _explained(address, error.sqlstate or "", str(error)) from error
    except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        # The driver's own: a connection that is gone, or a value or option that cannot be sent.
        if isinstance(error, ValueError):
            raise StorageError(f"{address.label} cannot be asked this ({_line(error)})") from error
        raise StorageBusy(f"{address.label} was cut off ({_line(error)})") from error
    except (OSError, EOFError) as error:  # among them TimeoutError, and those of name lookup and TLS
        raise StorageBusy(f"{address.label} cannot be reached ({_line(error) or 'no answer in time'})") from error


def _explained(address: Address, code: str, text: str) -> StorageError:
    said = f"({text.splitlines()[0] if text else code})"
    passing = _PASSING.get(code) or _PASSING_CLASSES.get(code[:2])
    if passing:
        return StorageBusy(f"{address.label} {passing} {said}")
    return StorageError(f"{address.label} {_LASTING.get(code, 'cannot be used')} {said}")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
