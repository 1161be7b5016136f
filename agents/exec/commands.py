# SPDX-License-Identifier: MIT
"""Which commands a host runs for its metrics, and how they are written in a configuration."""

import os
import re
import shlex
from collections.abc import Iterable
from typing import Annotated

from msgspec import Meta, field

from agents.foreign.texts import TextConfig
from bus.names import clean_word

DEFAULT_OUTPUT = 1024 * 1024
LONGEST_OUTPUT = 16 * 1024 * 1024

_SHELL_SIGN = re.compile(r"\d*[<>&|;]+(?:&?\d+|-)?|\$\{?\w+\}?|\$\(.*|`.*")
"""What only a shell would understand, where it stands alone."""


class Command(TextConfig, frozen=True, kw_only=True):
    """A program, its arguments and its limits."""

    name: Annotated[
        str, Meta(description="its word in the names of metrics; default: the program's name without its directory")
    ] = ""
    argv: Annotated[
        list[str], Meta(min_length=1, max_length=1000, description="the program and its arguments; there is no shell")
    ]
    timeout: Annotated[
        Annotated[float, Meta(ge=0.01, le=86400)] | None,
        Meta(
            description="seconds after which it is killed, with its process group; "
            "default: 0.9 periods, at least 0.5 and at most 30",
        ),
    ] = None
    every: Annotated[float, Meta(ge=0, le=86400, description="seconds between runs; default: the period")] = 0.0
    env: Annotated[
        dict[str, str],
        Meta(description="environment variables, besides the agent's own (of which HOSTBUS_* are not handed on)"),
    ] = field(default_factory=dict)
    cwd: Annotated[str, Meta(description="where it runs; default: where the agent does")] = ""
    max_output: Annotated[
        int,
        Meta(ge=1, le=LONGEST_OUTPUT, description="bytes of output; a command that writes more is killed"),
    ] = DEFAULT_OUTPUT

    def __post_init__(self) -> None:
        """Checks that msgspec's limits cannot express. Raises ValueError; never with a value of `env`."""
        super().__post_init__()
        if not self.argv[0]:
            raise ValueError("argv: the program's name is empty")
        if any("\0" in text for text in (*self.argv, self.cwd, *self.env, *self.env.values())):
            raise ValueError("argv, cwd and env cannot contain NUL characters")
        if self.name and self.name != clean_word(self.name):
            raise ValueError(f"name: {self.name!r} is not a word of A-Z a-z 0-9 _ -, like {clean_word(self.name)!r}")
        for variable in self.env:
            if not variable or "=" in variable:
                raise ValueError(f"env: {variable!r} cannot be the name of a variable")

    def __repr__(self) -> str:
        """Without the values of `env`, which may be secrets."""
        return f"Command(name={self.word!r}, argv={self.argv!r}, env={sorted(self.env)!r})"

    @property
    def word(self) -> str:
        """Its word in the names of metrics."""
        return self.name or clean_word(os.path.basename(self.argv[0]))

    def censored(self, text: str) -> str:
        """A text without the values of `env`: for logs."""
        for value in sorted(self.env.values(), key=len, reverse=True):
            if len(value) >= 4:
                text = text.replace(value, "***")
        return text


def commands_of(listed: Iterable[str | Command]) -> dict[str, Command]:
    """Commands by their words; those written as one line are split. Raises ValueError."""
    commands: dict[str, Command] = {}
    for entry in listed:
        command = split_line(entry) if isinstance(entry, str) else entry
        if command.word in commands:
            raise ValueError(
                f"commands: two are called {command.word!r}; give one another name: "
                f'{{name = "{command.word}2", argv = ["{command.argv[0]}", ...]}}'
            )
        commands[command.word] = command
    return commands


def split_line(line: str) -> Command:
    """A command written as one line, split into words as a shell does it, and no more. Raises ValueError."""
    try:
        argv = shlex.split(line)
    except ValueError as error:
        raise ValueError(f"commands: {line!r}: {error}") from None
    if not argv or not argv[0]:
        raise ValueError(f"commands: {line!r} names no program")
    for word in argv:
        if _SHELL_SIGN.fullmatch(word):
            raise ValueError(
                f"commands: {line!r}: {word!r} means nothing, as there is no shell; if one is wanted, name it: "
                f'{{name = "...", argv = ["sh", "-c", "..."]}}; if not, write the words as a list: {{argv = [...]}}'
            )
    return Command(argv=argv)
