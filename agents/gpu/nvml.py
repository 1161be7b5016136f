# SPDX-License-Identifier: MIT
"""NVML, NVIDIA's library about its GPUs: loading, opening and closing it, and what its error codes mean here.

What is asked of a GPU is in readings.py. The module `pynvml` is imported when NVML is first opened.
"""

import contextlib
from types import ModuleType

from agents.base.absent import NothingFound

# Codes of nvmlReturn_t. They are part of NVML's ABI, so they can be named before pynvml is there.
UNINITIALIZED = 1
INVALID_ARGUMENT = 2
NOT_SUPPORTED = 3
NO_PERMISSION = 4
NOT_FOUND = 6
INSUFFICIENT_SIZE = 7
DRIVER_NOT_LOADED = 9
LIBRARY_NOT_FOUND = 12
FUNCTION_NOT_FOUND = 13
GPU_IS_LOST = 15
RESET_REQUIRED = 16
LIB_RM_VERSION_MISMATCH = 18
ARGUMENT_VERSION_MISMATCH = 25
DEPRECATED = 26
GPU_NOT_FOUND = 28

ABSENT = {
    INVALID_ARGUMENT: "not supported",  # what drivers say of a field that is newer than they are
    NOT_SUPPORTED: "not supported",
    NO_PERMISSION: "no permission",
    NOT_FOUND: "not supported",
    FUNCTION_NOT_FOUND: "newer than the driver",
    ARGUMENT_VERSION_MISMATCH: "newer than the driver",
    DEPRECATED: "not supported",
}
"""Errors that say that a GPU lacks a value, and that it would be no use to ask again soon."""

GONE = frozenset(
    {UNINITIALIZED, DRIVER_NOT_LOADED, GPU_IS_LOST, RESET_REQUIRED, LIB_RM_VERSION_MISMATCH, GPU_NOT_FOUND}
)
"""Errors after which a handle is of no use any more."""

REASONS = {
    LIBRARY_NOT_FOUND: "no NVIDIA driver: libnvidia-ml.so.1 was not found",
    DRIVER_NOT_LOADED: "the NVIDIA driver is installed but not loaded (modprobe nvidia)",
    LIB_RM_VERSION_MISMATCH: "the NVIDIA driver was upgraded: reboot or load it anew, then restart the agent",
    NO_PERMISSION: "no permission to open the NVIDIA driver (/dev/nvidiactl)",
    FUNCTION_NOT_FOUND: "the NVIDIA driver is too old for nvidia-ml-py",
}
"""Why NVML cannot be opened, for people."""

NO_GPU = "the NVIDIA driver is loaded, but has no GPU"


class Nvml:
    """NVML, held open: opening costs milliseconds, and seconds where no other program keeps the driver awake.

    One thread at a time opens or closes it; any thread may call what `library` offers. If other agents of the
    process hold it too, NVML counts, and only the last close is one.
    """

    def __init__(self) -> None:
        self._library: ModuleType | None = None
        self.is_open = False

    @property
    def library(self) -> ModuleType:
        """The module pynvml. Raises RuntimeError before NVML was first opened."""
        if self._library is None:
            raise RuntimeError("NVML has not been opened")
        return self._library

    def open(self) -> int:
        """Open NVML if it is not open. Returns how many GPUs there are; raises NothingFound."""
        import pynvml  # type: ignore[import-untyped]  # it has no annotations

        self._library = pynvml
        try:
            if not self.is_open:
                pynvml.nvmlInit()
                self.is_open = True
            count = int(pynvml.nvmlDeviceGetCount())
        except pynvml.NVMLError as error:
            self.close()
            raise NothingFound(REASONS.get(error.value) or f"NVML cannot be opened: {error}") from error
        if not count:
            self.close()
            raise NothingFound(NO_GPU)
        return count

    def reopen(self) -> int:
        """Close NVML and open it: all handles become invalid. Returns and raises as `open` does."""
        self.close()
        return self.open()

    def close(self) -> None:
        """Let go of NVML and the driver. May be called twice; must not be while a call of a handle runs."""
        if self.is_open:
            self.is_open = False
            with contextlib.suppress(self.library.NVMLError):  # a driver that went has closed it already
                self.library.nvmlShutdown()
