# SPDX-License-Identifier: MIT
"""Configuration of agents: structs that check themselves and describe themselves.

An agent that can be configured names its struct in the class attribute `Config`. The same struct checks
the command line, hostbus.toml and what the manager pushes, and feeds ``agent list`` and the docs.
"""

import difflib
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self, TypeGuard

import msgspec
from msgspec import Meta

from bus.errors import ConfigError


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every agent's configuration: immutable, keyword-only, unknown fields are errors.

    Fields are annotated with a type, limits and a description::

        period: Annotated[float, Meta(gt=0, description="seconds between samples")] = 10.0
    """

    local_only: ClassVar[frozenset[str]] = frozenset()
    """Fields that only this host's file and command line may set: what comes over the bus must not choose which
    programs run here or which files are read."""

    @classmethod
    def load(cls, values: Mapping[str, Any], *, where: str = "configuration", strict: bool = True) -> Self:
        """Check `values` and make the struct. Raises ConfigError that names the field and what is right.

        strict=False also takes numbers and booleans written as text (command line, environment).
        """
        try:
            return msgspec.convert(dict(values), cls, strict=strict)
        except msgspec.ValidationError:
            raise ConfigError(cls.problems(values, where=where, strict=strict)[0]) from None

    @classmethod
    def problems(cls, values: Mapping[str, Any], *, where: str = "configuration", strict: bool = True) -> list[str]:
        """Everything that is wrong with `values`, one line each, where `load` raises the first."""
        return [f"{where}: {problem}" for problem in _problems(values, cls, "", strict=strict)]

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        return values


_OBJECT = re.compile(r"(expected `(?:[^`]* )?)object")
"""What msgspec calls an object people call a table in a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One field of a configuration, for people."""

    name: str
    type: str
    default: Any
    required: bool
    description: str
    fields: "tuple[Option, ...]" = ()
    """What is inside, where the value is a table or a list of tables."""


def options(config: type[AgentConfig]) -> list[Option]:
    """Every field of a configuration struct, in the order in which they are declared."""
    hints = typing.get_type_hints(config, include_extras=True)
    found = []
    for field in msgspec.structs.fields(config):
        hint = hints[field.name]
        description = ""
        if typing.get_origin(hint) is Annotated:
            hint, *extras = typing.get_args(hint)
            # The last one: where a type brings limits and a description of its own, what is around it says more.
            said = [extra.description for extra in extras if isinstance(extra, Meta) and extra.description]
            description = said[-1] if said else ""
        default = field.default_factory() if callable(field.default_factory) else field.default
        found.append(
            Option(
                name=field.name,
                type=type_in_words(hint),
                default=None if field.required else default,
                required=field.required,
                description=description,
                fields=tuple(options(inner)) if (inner := _table_in(hint)) else (),
            )
        )
    return found


def _is_table(hint: Any) -> TypeGuard[type[AgentConfig]]:
    return isinstance(hint, type) and issubclass(hint, AgentConfig)


def _table_in(hint: Any) -> type[AgentConfig] | None:
    """The struct somewhere in a type, like ``list[str | Target]``."""
    if _is_table(hint):
        return hint
    return next((found for part in typing.get_args(hint) if (found := _table_in(part))), None)


def _alternatives(hint: Any) -> Iterator[Any]:
    """``str | Target`` → str, Target: what a value of a type may be, without the limits."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        yield from _alternatives(parts[0])
    elif origin in (typing.Union, types.UnionType):
        for part in parts:
            yield from _alternatives(part)
    else:
        yield hint


def _problems(value: Any, hint: Any, path: str, *, strict: bool) -> list[str]:
    """What is wrong with a value: all of it in tables and lists of tables, elsewhere what msgspec finds first."""
    found: list[str] = []
    for kind in _alternatives(hint):
        if _is_table(kind) and isinstance(value, Mapping):
            found += _problems_of_table(value, kind, path, strict=strict)
        elif typing.get_origin(kind) is list and isinstance(value, list) and _table_in(kind):
            (item,) = typing.get_args(kind)
            for position, one in enumerate(value):
                found += _problems(one, item, f"{path}[{position}]", strict=strict)
    if not found:
        try:
            msgspec.convert(dict(value) if isinstance(value, Mapping) else value, hint, strict=strict)
        except msgspec.ValidationError as error:
            found.append(_OBJECT.sub(r"\1table", error_in_words(error, path)))
    return found


def _problems_of_table(value: Mapping[str, Any], table: type[AgentConfig], path: str, *, strict: bool) -> list[str]:
    """What is wrong with the keys of a table, each by itself."""
    fields = {field.name: field.type for field in msgspec.structs.fields(table)}
    found = []
    for name, inner in value.items():
        if name in fields:
            found += _problems(inner, fields[name], f"{path}.{name}".lstrip("."), strict=strict)
        else:
            found.append(unknown_key(name, fields, path))
    return found


def type_in_words(hint: Any) -> str:
    """``list[str]``, ``float | None``: a type as a person writes it, without the limits; a struct is a table."""
    if _is_table(hint):
        return "table"
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return type_in_words(parts[0])
    if origin is typing.Literal:
        return " | ".join(map(repr, parts))
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(type_in_words, parts))
    if parts:
        return f"{type_in_words(origin)}[{', '.join(map(type_in_words, parts))}]"
    plain = {types.NoneType: "None", Ellipsis: "..."}
    return str(plain.get(hint) or getattr(hint, "__name__", hint))


def unknown_key(name: str, known: Iterable[str], where: str = "") -> str:
    """The message for a key that is not known, with the nearest one that is."""
    place = f"{where}: " if where else ""
    return f"{place}unknown key {name!r}; {nearest(name, known)}"


def nearest(name: str, known: Iterable[str], also: Iterable[str] = ()) -> str:
    """What may have been meant by a name that is not among the known: ``did you mean 'period'?``.

    Names in `also` may be meant, too, but are not listed where none is near.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, [*names, *also], n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"


def error_in_words(error: msgspec.ValidationError, field: str = "") -> str:
    """msgspec's message, with the path of the field in front: ``period: expected `float`, got `str```."""
    text, _, path = str(error).partition(" - at `$")
    text = text[:1].lower() + text[1:]
    path = (field + path.rstrip("`")).lstrip(".")
    return f"{path}: {text}" if path else text
