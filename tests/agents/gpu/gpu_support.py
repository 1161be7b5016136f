# SPDX-License-Identifier: MIT
"""What the tests of GPUs share: NVML replaced by its double, and questions to readings."""

from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest

from tests.agents.gpu.nvml_double import NvmlDouble


def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[NvmlDouble]:
    """A double that pynvml takes for the library it has loaded. What hangs is let go at the end."""
    nvml = NvmlDouble()
    monkeypatch.setattr(pynvml, "nvmlLib", nvml)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    monkeypatch.setattr(pynvml, "_nvmlLib_refcount", 0)
    yield nvml
    for gate in [*nvml.hanging.values(), *(gate for gpu in nvml.gpus for gate in gpu.hanging.values())]:
        gate.set()


def add_process(proc: Path, pid: int, name: str) -> None:
    """A process of the made-up host."""
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "comm").write_text(f"{name}\n")


def of(reading: dict[str, float], word: str) -> dict[str, float]:
    """The part of a reading that is below a word."""
    return {name.removeprefix(f"{word}."): value for name, value in reading.items() if name.startswith(f"{word}.")}


def words(reading: dict[str, float]) -> dict[str, float]:
    """Which GPUs there are, and whether they respond."""
    return {name.split(".")[0]: value for name, value in reading.items() if name.endswith(".responds")}


def answering(reading: dict[str, float]) -> set[str]:
    """The GPUs that have a temperature."""
    return {name.split(".")[0] for name in reading if name.endswith(".temperature")}


def lines(caplog: pytest.LogCaptureFixture, *parts: str) -> list[str]:
    """The messages in the log that have all the parts."""
    return [record.getMessage() for record in caplog.records if all(part in record.getMessage() for part in parts)]
