"""JSON values → dataclasses: every value is of the type that its field declares, or an error says where it is not."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

__all__ = ["FormatProblem", "is_finite", "shown", "typed"]

# Sizes and counts beyond this are no sizes of tensors, and torch cannot hold them.
_LARGEST = 2**63 - 1


class FormatProblem(ValueError):
    """A value that is not what a field takes; the message says where."""


def typed(value: Any, kind: Any, where: str) -> Any:
    """``value``, as JSON gave it, as an instance of ``kind``.

    Args:
        value: A JSON value.
        kind: A dataclass, ``str``, ``int``, ``float``, ``bool``, a ``Literal``, ``tuple[X, ...]``,
            ``Mapping[str, X]``, or a union of these.
        where: The place of the value, for messages.

    Raises:
        FormatProblem: if it is of another type, or not in range.

    >>> typed([1, 2], tuple[int, ...], "shape")
    (1, 2)
    """
    if dataclasses.is_dataclass(kind):
        return _record(value, kind, where)
    origin = get_origin(kind)
    if origin is Literal:
        return _choice(value, get_args(kind), where)
    if origin is tuple:
        return _tuple(value, get_args(kind)[0], where)
    if origin is not None and issubclass(origin if isinstance(origin, type) else object, Mapping):
        return _mapping(value, get_args(kind)[1], where)
    if origin in (Union, types.UnionType):
        return _union(value, get_args(kind), where)
    return _plain(value, kind, where)


@functools.cache
def _fields(kind: Any) -> tuple[tuple[str, Any, bool], ...]:
    """Name, type and necessity of each field of a dataclass."""
    hints = get_type_hints(kind)
    return tuple(
        (
            field.name,
            hints[field.name],
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING,
        )
        for field in dataclasses.fields(kind)
    )


def _record(value: Any, kind: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _problem(where, value, "an object")
    fields = _fields(kind)
    names = {name for name, _, _ in fields}
    for key in value:
        if key not in names:
            raise FormatProblem(
                f"{where or 'the plan'} has a key {shown(key)} that this version does not know"
            )
    given = {}
    for name, field_kind, required in fields:
        if name in value:
            given[name] = typed(value[name], field_kind, _place(value, name, where))
        elif required:
            raise FormatProblem(f"{where or 'the plan'} lacks the key {name!r}")
    return kind(**given)


def _place(record: dict[str, Any], field: str, where: str) -> str:
    """``role of 0.gain``, as a person would say, for what has a name; else the path to it."""
    name = record.get("name")
    if field != "name" and where and isinstance(name, str) and len(name) < 200:
        return f"{field} of {name or 'the model'}"
    return f"{where}.{field}" if where else field


def _choice(value: Any, allowed: tuple[Any, ...], where: str) -> Any:
    for choice in allowed:
        if type(value) is type(choice) and value == choice:
            return value
    raise _problem(where, value, f"one of {', '.join(map(repr, allowed))}")


def _tuple(value: Any, kind: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _problem(where, value, "a list")
    return tuple(typed(item, kind, f"{where}[{place}]") for place, item in enumerate(value))


def _mapping(value: Any, kind: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _problem(where, value, "an object")
    return {_text(key, where): typed(item, kind, f"{where}[{shown(key)}]") for key, item in value.items()}


def _union(value: Any, kinds: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    rest = [kind for kind in kinds if kind is not type(None)]
    for kind in rest:
        try:
            return typed(value, kind, where)
        except FormatProblem:
            if kind is rest[-1]:
                raise
    raise _problem(where, value, "null")


def _plain(value: Any, kind: Any, where: str) -> Any:
    if kind is str:
        return _text(value, where)
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST:
        return value
    # A whole number stays one: a plan that was read is the plan that was written.
    if kind is float and is_finite(value):
        return value
    names = {bool: "true or false", int: "a whole number from 0 on", float: "a finite number"}
    raise _problem(where, value, names.get(kind, "null"))


def is_finite(value: object) -> bool:
    """Whether a value is a number that a plan holds: finite, and if it is whole, within the range of torch's."""
    if isinstance(value, bool):
        return False
    return (isinstance(value, int) and abs(value) <= _LARGEST) or (
        isinstance(value, float) and math.isfinite(value)
    )


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _problem(where, value, "a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise FormatProblem(f"{where} holds half of a surrogate pair, which no file can hold") from None
    return value


def _problem(where: str, value: Any, needed: str) -> FormatProblem:
    return FormatProblem(f"{where or 'the plan'} is {shown(value)}, where {needed} is needed")


def shown(value: Any) -> str:
    """A value from a file, short, on one line and without control characters."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    if isinstance(value, int) and abs(value) > _LARGEST:
        return "a number of more than 18 digits"
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
