"""What Python holds beside tensors on the device, and a recording would keep: attributes, hooks, and variables."""

from __future__ import annotations

import dis
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from types import CodeType, ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["PLAIN", "attributes", "modules_of", "seen", "variables", "variables_put_back"]

PLAIN = frozenset({bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device})
# Told apart, or of no use in a step.
_LEFT_OUT = frozenset(nn.Module().__dict__) - {
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
}
_DEEPEST = 3


class Place(NamedTuple):
    """Where a tensor lies; and how often it was written, where it lies with the host and a kernel has its number."""

    address: int
    written: int = 0


class Identity(NamedTuple):
    """Which object it is."""

    number: int


def seen(value: Any) -> object:
    """What tells one value from another that Python would compute something else from."""
    if type(value) in PLAIN:
        return value
    if isinstance(value, Tensor):
        return _place(value)
    if type(value) is OrderedDict:  # hooks, by their numbers
        return tuple(value)
    return value if isinstance(value, (int, float, str)) else Identity(id(value))


def _place(tensor: Tensor) -> Place | Identity:
    if tensor.layout is not torch.strided:
        return Identity(id(tensor))
    return Place(tensor.data_ptr(), tensor._version if tensor.device.type == "cpu" else 0)


def attributes(module: nn.Module) -> dict[str, object]:
    """What a module holds itself, its hooks too; parameters, buffers, submodules and the mode are told apart."""
    return {
        key: value if type(value) in PLAIN else seen(value)  # a call for each would take its time at each step
        for key, value in module.__dict__.items()
        if key not in _LEFT_OUT and (value or type(value) is not OrderedDict)
    }


def modules_of(roots: Iterable[object]) -> list[nn.Module]:
    """All modules among the roots and what functions among them read, each once, the roots' own first."""
    found: dict[nn.Module, None] = {}
    for root in roots:
        tops = (
            [root]
            if isinstance(root, nn.Module)
            else [v for _, v in _reads(root) if isinstance(v, nn.Module)]
        )
        for top in tops:
            if top not in found:
                found.update(dict.fromkeys(top.modules()))
    return list(found)


def variables(function: object) -> list[tuple[str, object]]:
    """What a function reads from outside of itself, with the names that it has there: variables, ``config.rate``."""
    return [(name, seen(value)) for name, value in _reads(function) if not isinstance(value, nn.Module)]


def variables_put_back(function: Any) -> Callable[[], None]:
    """Remember the variables of a function that are not its own; the result puts them back."""
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        return lambda: None
    cells = [(cell, held) for cell, held in _filled(function.__closure__ or ())]
    names, place = _words(code).variables, function.__globals__
    values = {name: place[name] for name in names & place.keys()}
    owner = getattr(function, "__self__", None)
    own = getattr(owner, "__dict__", {}) if not isinstance(owner, ModuleType) else {}
    attributes = {key: own[key] for key in _words(code).attributes & own.keys()}

    def put_back() -> None:
        for cell, held in cells:
            cell.cell_contents = held
        place.update(values)
        own.update(attributes)

    return put_back


def _filled(cells: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    for cell in cells:
        try:
            yield cell, cell.cell_contents
        except ValueError:  # a variable without a value yet
            continue


def _reads(function: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(function, nn.Module):
        return
    if isinstance(function, partial):
        yield from _reads(function.func)
        yield from ((f"argument {number}", value) for number, value in enumerate(function.args))
        yield from function.keywords.items()
        return
    owner = getattr(function, "__self__", None)
    if not hasattr(function, "__code__"):
        owner, function = function, getattr(type(function), "__call__", None)  # noqa: B004
    code = getattr(function, "__code__", None)
    if isinstance(code, CodeType):
        words = _words(code)
        for name, value in _roots(function, code, words, owner):
            yield from _inside(name, value, words, _DEEPEST)


class _Words(NamedTuple):
    """The variables that code reads from outside; the attributes, and the keys, that it may read of anything."""

    variables: frozenset[str]
    attributes: frozenset[str]
    keys: frozenset[str]


@lru_cache(maxsize=1024)
def _words(code: CodeType) -> _Words:
    variables, attributes, keys = set(), set(), set()
    for instruction in dis.get_instructions(code):
        if instruction.opname.startswith(("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLOSURE")):
            variables.add(instruction.argval)
        elif instruction.opname.startswith(("LOAD_ATTR", "LOAD_METHOD")):
            attributes.add(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, str):
            keys.add(constant)
        elif isinstance(constant, CodeType):  # a function or comprehension in it
            inner = _words(constant)
            variables |= inner.variables
            attributes |= inner.attributes
            keys |= inner.keys
    return _Words(frozenset(variables), frozenset(attributes), frozenset(keys))


def _roots(function: Any, code: CodeType, words: _Words, owner: Any) -> Iterator[tuple[str, Any]]:
    names = {id(cell): name for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True)}
    for cell, held in _filled(function.__closure__ or ()):
        if names[id(cell)] in words.variables:  # else it is only written
            yield names[id(cell)], held
    for name in words.variables & function.__globals__.keys():
        yield name, function.__globals__[name]
    for number, value in enumerate(function.__defaults__ or ()):
        yield f"default {number}", value
    yield from (function.__kwdefaults__ or {}).items()
    if isinstance(owner, nn.Module):  # what it holds itself is told apart
        held = ((key, owner.__dict__[key]) for key in words.attributes & owner.__dict__.keys())
        yield from ((f"self.{key}", value) for key, value in held if _parts(value, words))
    elif owner is not None and not isinstance(owner, ModuleType):
        yield "self", owner


def _inside(name: str, value: Any, words: _Words, depth: int) -> Iterator[tuple[str, Any]]:
    """The value, or what the code may read of it."""
    inner = _parts(value, words) if depth else None
    if not inner:
        yield name, value
        return
    for key, part in inner.items():
        yield from _inside(f"{name}.{key}", part, words, depth - 1)


def _parts(value: Any, words: _Words) -> dict[str, Any]:
    if isinstance(value, dict):
        return {key: value[key] for key in words.keys if key in value}
    if isinstance(value, (Tensor, nn.Module, type, Callable)):  # type: ignore[arg-type]
        return {}
    held = getattr(value, "__dict__", None)
    if not isinstance(held, dict):
        return {}
    return {key: held[key] for key in words.attributes if key in held}
