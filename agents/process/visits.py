# SPDX-License-Identifier: MIT
"""How processes are read, of which any may hang.

The command line of a process cannot be read while another of its threads maps memory, which may last for ever if its
disk is dead.
"""

from typing import TypeVar

from agents.base.isolate import Isolator
from agents.base.parts import FAILURES

K = TypeVar("K")
V = TypeVar("V")

MOST_HUNG = 8
"""Threads that may hang at once; past it nothing is read until one of them returns."""


def isolator(name: str) -> Isolator[K, V]:
    """What calls for thousands of processes, on a machine that may be just slow: two threads at a time."""
    return Isolator(name=name, failures=FAILURES, most_hung=MOST_HUNG)
