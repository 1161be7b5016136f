# SPDX-License-Identifier: MIT
"""Logs of the command line: on stderr, one line each; ``-v`` adds debug messages and tracebacks of errors."""

import logging
import sys
import typing
from collections.abc import Iterator
from contextlib import contextmanager

VERBOSE_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


class _Stderr(logging.StreamHandler[typing.TextIO]):
    """Writes to what is sys.stderr now: a live table puts itself in its place, and logs go above it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> typing.TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, _: typing.TextIO) -> None:
        raise AttributeError("it follows sys.stderr")


def set_up(*, verbose: bool = False) -> None:
    """Send all logs to stderr. May be called twice: the last one counts."""
    handler = _Stderr()
    handler.setFormatter(logging.Formatter(VERBOSE_FORMAT if verbose else FORMAT, datefmt="%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    # What they have to say about lost connections our own transport says once, in words.
    for library in ("aiormq", "aiosqlite"):
        logging.getLogger(library).setLevel(logging.INFO if verbose else logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.INFO if verbose else logging.WARNING)


@contextmanager
def hushed(name: str = "bus") -> Iterator[None]:
    """Nothing is logged under a name meanwhile: for what is told in another way."""
    logger = logging.getLogger(name)
    before = logger.level
    if not is_verbose():
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def is_verbose() -> bool:
    """True after ``-v``."""
    return logging.getLogger().getEffectiveLevel() <= logging.DEBUG
