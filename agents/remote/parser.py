# SPDX-License-Identifier: MIT
"""What turns the output of a command on a remote host into metrics."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from agents.base.parts import Parts
from agents.metric import Metric
from bus.timestamp import Timestamp


@dataclass(slots=True, kw_only=True)
class Context:
    """What a parser may know besides the output: one per host and parser, kept for as long as the source runs.

    host: the host's word in metric names. core_count: cores in service. tick: the time of the points. now_s: when
    the output came, in monotonic seconds, for rates. state: the parser's own memory, empty at first. parts: for what
    may fail alone: ``with context.parts("fan2"): ...``.
    """

    host: str
    core_count: int = 1
    tick: Timestamp = Timestamp(0)  # noqa: RUF009  # immutable
    now_s: float = 0.0
    state: dict[str, Any] = field(default_factory=dict)
    parts: Parts = field(default_factory=lambda: Parts("parser"))


class MetricParser(ABC):
    """One command and what its output means; subclass it, and register it with `register_parsers`.

        class Users(MetricParser):
            family = "logins"
            command = "who | wc -l"
            unit = "1"
            description = "sessions logged in"

            def parse(self, output, context):
                return {"sessions": float(output)}

    gives ``HOST.logins.sessions``. A parser serves many hosts: what it remembers goes into `context.state`.
    """

    family: ClassVar[str]
    """The metrics are called ``HOST.FAMILY.NAME``."""

    command: ClassVar[str]
    """One line for a POSIX shell. It should read and never write, and end within a fraction of the period."""

    unit: ClassVar[str] = "1"
    """The unit (UCUM) of all values, for parsers without a table of `metrics`."""

    description: ClassVar[str] = ""
    """What the values are, for parsers without a table of `metrics`."""

    metrics: ClassVar[tuple[Metric, ...]] = ()
    """What `parse` may return, where that is more than one kind of thing."""

    every_s: ClassVar[float] = 0.0
    """Seconds between runs, for commands that are too dear for every tick."""

    @abstractmethod
    def parse(self, output: str, context: Context) -> Mapping[str, float]:
        """Values by name, without ``HOST.FAMILY.``. Raises ValueError or LookupError for what makes no sense."""

    def table(self) -> tuple[Metric, ...]:
        """What `parse` may return: `metrics`, or one entry for any name."""
        return self.metrics or (Metric("{name...}", self.unit, self.description, every_s=self.every_s),)
