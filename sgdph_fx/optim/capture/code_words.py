"""Which names Python code reads from outside of itself, and which functions of yours it calls."""

from __future__ import annotations

import dis
import inspect
from collections.abc import Iterable, Iterator
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any, NamedTuple

__all__ = ["Words", "filled", "followed", "joined", "words_of"]

_NOT_FOLLOWED = ("torch", "sgdph_fx", "numpy")


class Words(NamedTuple):
    """The variables that code reads from outside; the attributes, and the keys, that it may read of anything."""

    variables: frozenset[str]
    attributes: frozenset[str]
    keys: frozenset[str]

    @property
    def finds_by_name(self) -> bool:
        """Whether it may read attributes whose names it puts together."""
        return not self.variables.isdisjoint(("getattr", "vars")) or "__dict__" in self.attributes


def words_of(functions: Iterable[FunctionType]) -> Words:
    """Those of all the functions."""
    return _together(tuple(function.__code__ for function in functions))


@lru_cache(maxsize=4096)
def _together(codes: tuple[CodeType, ...]) -> Words:
    return joined(map(_words, codes))


def joined(some: Iterable[Words]) -> Words:
    """All words of all of them."""
    none: frozenset[str] = frozenset()
    columns = tuple(zip(*some, strict=True)) or ((), (), ())
    return Words(*(none.union(*column) for column in columns))


@lru_cache(maxsize=4096)
def _words(code: CodeType) -> Words:
    variables: set[str] = set()
    attributes: set[str] = set()
    keys = {constant for constant in code.co_consts if isinstance(constant, str)}
    for instruction in dis.get_instructions(code):
        if instruction.opname.startswith(("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLOSURE")):
            variables.add(instruction.argval)
        elif instruction.opname.startswith(("LOAD_ATTR", "LOAD_METHOD")):
            attributes.add(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):  # a function or comprehension in it
            inner = _words(constant)
            variables |= inner.variables
            attributes |= inner.attributes
            keys |= inner.keys
    return Words(frozenset(variables), frozenset(attributes), frozenset(keys))


def followed(function: Any, kind: type | None) -> list[FunctionType]:
    """The function, and what it calls: other functions, and methods of the class that it belongs to.

    Args:
        function: A function; nothing is found for anything else.
        kind: The class whose method it is.
    """
    found: dict[CodeType, FunctionType] = {}
    _follow(function, kind, found)
    return list(found.values())


def _follow(function: Any, kind: type | None, found: dict[CodeType, FunctionType]) -> None:
    if not isinstance(function, FunctionType) or function.__code__ in found:
        return
    found[function.__code__] = function
    words = _words(function.__code__)
    outside = [value for _, _, value in filled(function)]
    outside += [function.__globals__[name] for name in words.variables & function.__globals__.keys()]
    for value in outside:
        if isinstance(value, FunctionType) and not str(value.__module__).startswith(_NOT_FOLLOWED):
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
