"""Which Python code runs where a function is called: its own, and that of whatever of yours it calls."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

from torch import nn

from sgdph_fx.optim.capture.code_words import Words, words_of

__all__ = ["Part", "filled", "followed", "forward_of", "is_of_torch", "outside", "parts_of"]

_NOT_FOLLOWED = ("torch", "sgdph_fx", "numpy")
_LONGEST = 64


class Part(NamedTuple):
    """Functions, and the object that they are methods of."""

    functions: Sequence[FunctionType]
    owner: Any


def parts_of(function: Any) -> Iterator[Part]:
    """The code that runs where a function or object is called, by the objects that it belongs to.

    Other objects that it calls are followed as well: methods, partial functions, objects with a ``__call__``, and lists
    of these.
    """
    known: dict[int, Any] = {}
    waiting = [function]
    while waiting:
        one = waiting.pop()
        if id(one) in known:
            continue
        known[id(one)] = one
        if isinstance(one, partial):
            waiting += [one.func, *filter(_is_yours, (*one.args, *one.keywords.values()))]
            continue
        part = _part_of(one)
        yield part
        known |= {id(f): f for f in part.functions}
        waiting += [value for held in _held_by(part) for value in _called(held)]


def _part_of(function: Any) -> Part:
    if isinstance(function, FunctionType):
        return Part(followed(function, None), None)
    if isinstance(function, nn.Module):
        return Part(forward_of(type(function)), function)
    owner = getattr(function, "__self__", function)
    method = getattr(function, "__func__", getattr(type(function), "__call__", None))  # noqa: B004
    return Part(followed(method, type(owner)), owner)


def _held_by(part: Part) -> Iterator[Any]:
    words = words_of(part.functions)
    yield part.owner  # a method may call its object
    yield from (value for _, value in outside(part, words))
    own = {} if isinstance(part.owner, ModuleType) else getattr(part.owner, "__dict__", {})
    yield from (own[name] for name in words.attributes & own.keys())


def _called(value: Any) -> Iterator[Any]:
    """What code may call of a value that it reads."""
    if isinstance(value, (list, tuple, dict)):
        several = value.values() if isinstance(value, dict) else value
        yield from filter(_is_yours, several if len(value) <= _LONGEST else ())
    elif _is_yours(value):
        yield value


def _is_yours(value: Any) -> bool:
    """Whether it is called, and is code of yours; modules are looked at for themselves."""
    if isinstance(value, (FunctionType, MethodType)):
        return not str(value.__module__).startswith(_NOT_FOLLOWED)
    kind = type(value)
    if isinstance(value, (nn.Module, type)) or kind.__module__.startswith(_NOT_FOLLOWED):
        return False
    return isinstance(value, partial) or isinstance(getattr(kind, "__call__", None), FunctionType)  # noqa: B004


def outside(part: Part, words: Words) -> Iterator[tuple[str, Any]]:
    """What the functions read from outside of themselves, with the names that it has there."""
    for function in part.functions:
        for name, _, value in filled(function):
            if name in words.variables:  # else it is only written
                yield name, value
        for name in words.variables & function.__globals__.keys():
            yield name, function.__globals__[name]
        for number, value in enumerate(function.__defaults__ or ()):
            yield f"default {number}", value
        yield from (function.__kwdefaults__ or {}).items()


def is_of_torch(kind: type) -> bool:
    """Whether a class is torch's own."""
    return kind.__module__.startswith("torch.")


def forward_of(kind: Any) -> tuple[FunctionType, ...]:
    """The forward of a module's class, and what it calls; nothing for torch's own classes."""
    return () if is_of_torch(kind) else _known_forward_of(kind, getattr(kind, "forward", None))


@lru_cache(maxsize=1024)
def _known_forward_of(kind: Any, forward: Any) -> tuple[FunctionType, ...]:
    return tuple(followed(forward, kind))


def followed(function: Any, kind: type | None) -> list[FunctionType]:
    """The function, and what it calls: other functions, and methods of the class that it belongs to.

    Args:
        function: A function; nothing is found for anything else.
        kind: The class whose method it is.
    """
    found: dict[FunctionType, None] = {}
    _follow(function, kind, found)
    return list(found)


def _follow(function: Any, kind: type | None, found: dict[FunctionType, None]) -> None:
    if not isinstance(function, FunctionType) or function in found:
        return
    found[function] = None
    words = words_of([function])
    values = [value for _, _, value in filled(function)]
    values += [function.__globals__[name] for name in words.variables & function.__globals__.keys()]
    for value in values:
        if isinstance(value, FunctionType) and _is_yours(value):
            _follow(value, None, found)
    for name in words.attributes if kind is not None else ():
        member = inspect.getattr_static(kind, name, None)
        _follow(member.fget if isinstance(member, property) else member, kind, found)


def filled(function: FunctionType) -> Iterator[tuple[str, Any, Any]]:
    """The variables around the function that have a value: name, cell and value."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell, cell.cell_contents
        except ValueError:  # a variable without a value yet
            continue
