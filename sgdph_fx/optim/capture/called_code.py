"""Which Python code runs where a function is called: its own, and that of whatever of yours it calls."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

from torch import nn

from sgdph_fx.optim.capture.code_words import Words, words_of
from sgdph_fx.optim.capture.seen_values import LONGEST

__all__ = [
    "HOOKS",
    "Part",
    "filled",
    "followed",
    "forward_of",
    "hooks_of",
    "is_of_torch",
    "is_yours",
    "outside",
    "parts_of",
]

_NOT_FOLLOWED = ("torch", "sgdph_fx", "numpy")
HOOKS = frozenset({"_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"})
"""Where a module keeps its hooks."""


class Part(NamedTuple):
    """Functions, and the object that they are methods of."""

    functions: Sequence[FunctionType]
    owner: Any


def parts_of(function: Any) -> Iterator[Part]:
    """The code that runs where a function or object is called, by the objects that it belongs to.

    Other objects that it calls are followed as well: methods, partial functions, objects with a ``__call__``, methods
    and properties of objects whose class is yours, and lists of these.
    """
    known: dict[Any, Any] = {}
    waiting = [function]
    while waiting:
        one = waiting.pop()
        if id(one) in known:
            continue
        known[id(one)] = one
        if isinstance(one, partial):
            waiting += [one.func, *filter(is_yours, (*one.args, *one.keywords.values()))]
            continue
        parts = [_part_of(one)]
        while parts:
            part = parts.pop()
            yield part
            known |= {id(f): f for f in part.functions}
            words = words_of(part.functions)
            held = [value for several in _held_by(part, words) for value in _each(several)]
            waiting += filter(is_yours, held)
            for value in held:
                if ("members", id(value)) not in known and (members := _members(value, words)):
                    known["members", id(value)] = value
                    parts.append(Part(members, value))


def _part_of(function: Any) -> Part:
    if isinstance(function, FunctionType):
        return Part(followed(function, None), None)
    if isinstance(function, nn.Module):
        return Part(forward_of(type(function)), function)
    owner = getattr(function, "__self__", function)
    method = getattr(function, "__func__", getattr(type(function), "__call__", None))  # noqa: B004
    return Part(followed(method, type(owner)), owner)


def _held_by(part: Part, words: Words) -> Iterator[Any]:
    yield part.owner  # a method may call its object
    yield from (value for _, value in outside(part, words))
    own = {} if isinstance(part.owner, ModuleType) else getattr(part.owner, "__dict__", {})
    yield from (own[name] for name in words.attributes & own.keys())


def _each(value: Any) -> Iterable[Any]:
    """A value that code reads, or what a list or dict holds."""
    if not isinstance(value, (list, tuple, dict)):
        return (value,)
    return () if len(value) > LONGEST else value.values() if isinstance(value, dict) else value


def _members(value: Any, words: Words) -> list[FunctionType]:
    """The methods and properties of an object that code may read, if it is one of yours."""
    kind: Any = type(value)
    if not is_your_class(kind):
        return []
    found: dict[FunctionType, None] = {}
    for base in kind.__mro__[:-1]:  # all but object
        for name in words.attributes & vars(base).keys():
            _follow_member(kind, name, found)
    return list(found)


@lru_cache(maxsize=1024)
def is_your_class(kind: Any) -> bool:
    """Whether a class is written in a file of yours, and is no module's."""
    root = kind.__module__.partition(".")[0]
    if issubclass(kind, nn.Module) or root in (*_NOT_FOLLOWED, "builtins") or root in sys.stdlib_module_names:
        return False
    file = str(getattr(sys.modules.get(kind.__module__), "__file__", ""))
    return "site-packages" not in file and "dist-packages" not in file


def is_yours(value: Any) -> bool:
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
        for number, value in enumerate(function.__defaults__ or ()):
            yield f"default {number}", value
        yield from (function.__kwdefaults__ or {}).items()
    for place in {id(function.__globals__): function.__globals__ for function in part.functions}.values():
        yield from ((name, place[name]) for name in words.variables & place.keys())


def hooks_of(modules: Iterable[nn.Module]) -> Iterator[Any]:
    """The hooks of modules and of their parameters that are code of yours."""
    for module in modules:
        own = module.__dict__
        for name in HOOKS:
            if own.get(name):
                yield from filter(is_yours, own[name].values())
        for parameter in own["_parameters"].values():
            if parameter is not None:
                yield from filter(is_yours, (parameter._backward_hooks or {}).values())
                yield from filter(is_yours, (parameter._post_accumulate_grad_hooks or {}).values())


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
        if isinstance(value, FunctionType) and is_yours(value):
            _follow(value, None, found)
    for name in words.attributes if kind is not None else ():
        _follow_member(kind, name, found)


def _follow_member(kind: type | None, name: str, found: dict[FunctionType, None]) -> None:
    member = inspect.getattr_static(kind, name, None)
    _follow(member.fget if isinstance(member, property) else member, kind, found)


def filled(function: FunctionType) -> Iterator[tuple[str, Any, Any]]:
    """The variables around the function that have a value: name, cell and value."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell, cell.cell_contents
        except ValueError:  # a variable without a value yet
            continue
