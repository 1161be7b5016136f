# SPDX-License-Identifier: MIT
"""Configuration of agents: structs that check themselves and describe themselves.

An agent that can be configured names its struct in the class attribute `Config`. The same struct checks
the command line, hostbus.toml and what the manager pushes, and feeds ``agent list`` and the docs.
"""

import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

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
        for name in values:
            if name not in cls.__struct_fields__:
                raise ConfigError(unknown_key(name, cls.__struct_fields__, where))
        try:
            return msgspec.convert(dict(values), cls, strict=strict)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{where}: {error_in_words(error)}") from None

    @classmethod
    def problems(cls, values: Mapping[str, Any], *, where: str = "configuration", strict: bool = True) -> list[str]:
        """Everything that is wrong with `values`, one line each, where `load` raises the first."""
        types = {field.name: field.type for field in msgspec.structs.fields(cls)}
        found = []
        for name, value in values.items():
            if name not in types:
                found.append(unknown_key(name, types, where))
                continue
            try:
                msgspec.convert(value, types[name], strict=strict)
            except msgspec.ValidationError as error:
                found.append(f"{where}: {error_in_words(error, name)}")
        if not found:
            try:
                cls.load(values, where=where, strict=strict)
            except ConfigError as error:
                found.append(str(error))
        return found

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        return values


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
            description = next((extra.description or "" for extra in extras if isinstance(extra, Meta)), "")
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


def _table_in(hint: Any) -> type["AgentConfig"] | None:
    """The struct somewhere in a type, like ``list[str | Target]``."""
    if isinstance(hint, type) and issubclass(hint, AgentConfig):
        return hint
    return next((found for part in typing.get_args(hint) if (found := _table_in(part))), None)


def type_in_words(hint: Any) -> str:
    """``list[str]``, ``float | None``: a type as a person writes it, without the limits; a struct is a table."""
    if isinstance(hint, type) and issubclass(hint, AgentConfig):
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


def unknown_key(name: str, known: Iterable[str], where: str) -> str:
    """The message for a key that is not known, with the nearest one that is."""
    return f"{where}: unknown key {name!r}; {nearest(name, known)}"


def nearest(name: str, known: Iterable[str]) -> str:
    """What may have been meant by a name that is not among the known: ``did you mean 'period'?``."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"


def error_in_words(error: msgspec.ValidationError, field: str = "") -> str:
    """msgspec's message, with the path of the field in front: ``period: expected `float`, got `str```."""
    text, _, path = str(error).partition(" - at `$")
    text = text[:1].lower() + text[1:]
    path = (field + path.rstrip("`")).lstrip(".")
    return f"{path}: {text}" if path else text
