"""Which names Python code reads from outside of itself."""

from __future__ import annotations

import dis
from collections.abc import Iterable
from functools import lru_cache
from types import CodeType, FunctionType
from typing import NamedTuple

__all__ = ["Words", "joined", "words_of"]


class Words(NamedTuple):
    """The variables that code reads from outside; the attributes, and the keys, that it may read of anything.

    ``imports`` are the modules that it imports itself: how many dots their names begin with, and the names.
    """

    variables: frozenset[str]
    attributes: frozenset[str]
    keys: frozenset[str]
    imports: frozenset[tuple[int, str]]

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
    columns = tuple(zip(*some, strict=True)) or ((), (), (), ())
    return Words(*(frozenset().union(*column) for column in columns))


@lru_cache(maxsize=4096)
def _words(code: CodeType) -> Words:
    variables: set[str] = set()
    attributes: set[str] = set()
    imports: set[tuple[int, str]] = set()
    keys = {constant for constant in code.co_consts if isinstance(constant, str)}
    before: list[dis.Instruction] = []
    for instruction in dis.get_instructions(code):
        name = instruction.opname
        if name.startswith(("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLOSURE")):
            variables.add(instruction.argval)
        elif name.startswith(("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER", "IMPORT_FROM")):
            attributes.add(instruction.argval)
        elif name == "IMPORT_NAME":  # after the number of dots, and the names that are taken from it
            dots = before[-2].argval if len(before) > 1 else 0
            imports.add((dots if isinstance(dots, int) else 0, instruction.argval))
        before = [*before[-1:], instruction]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):  # a function or comprehension in it
            inner = _words(constant)
            variables |= inner.variables
            attributes |= inner.attributes
            keys |= inner.keys
            imports |= inner.imports
    return Words(frozenset(variables), frozenset(attributes), frozenset(keys), frozenset(imports))
