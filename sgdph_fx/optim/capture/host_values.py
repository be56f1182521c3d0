"""What Python holds beside tensors on the device, and a recording would keep: attributes, hooks, and variables."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sgdph_fx.optim.capture.code_words import Words, filled, followed, joined, words_of
from sgdph_fx.optim.sgdph import SGDPH

__all__ = [
    "PLAIN",
    "VALUES",
    "attributes",
    "modules_of",
    "names_read",
    "parts_of",
    "seen",
    "variables",
    "variables_of_modules",
]

VALUES: tuple[type, ...] = (bool, int, float, complex, str, bytes, type(None))
PLAIN: frozenset[type] = frozenset({*VALUES, torch.dtype, torch.device})
_HOOKS = frozenset({"_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"})
_LEFT_OUT = frozenset(nn.Module().__dict__) - _HOOKS  # told apart, or of no use in a step
_DEEPEST = 3


class Place(NamedTuple):
    """Where a tensor lies; and how often it was written, if it lies on a CPU and kernels of a GPU take its number."""

    address: int
    written: int = 0


class Identity(NamedTuple):
    """Which object it is."""

    number: int


def seen(value: Any, *, on_gpu: bool) -> object:
    """What tells one value from another that Python would compute something else from.

    Args:
        value: The value.
        on_gpu: Whether the step runs on another device than the CPU.
    """
    if type(value) in PLAIN:
        return value
    if isinstance(value, Tensor):
        return _place(value, on_gpu)
    if type(value) is OrderedDict:  # hooks, by their numbers
        return tuple(value)
    return value if isinstance(value, (int, float, str)) else Identity(id(value))


def _place(tensor: Tensor, on_gpu: bool) -> Place | Identity:
    if tensor.layout is not torch.strided:
        return Identity(id(tensor))
    counted = on_gpu and tensor.device.type == "cpu" and not tensor.is_inference()
    return Place(tensor.data_ptr(), tensor._version if counted else 0)


def attributes(module: nn.Module, names: Words, *, on_gpu: bool) -> dict[str, object]:
    """What a module holds itself, its hooks too; parameters, buffers, submodules and the mode are told apart.

    Args:
        module: The module.
        names: Those that any code of the step reads; what else a class of yours holds takes no part in it.
        on_gpu: As of :func:`seen`.
    """
    every = _is_of_torch(type(module)) or names.finds_by_name
    return {
        key: value
        if type(value) in PLAIN
        else seen(value, on_gpu=on_gpu)  # a call for each would take its time at each step
        for key, value in module.__dict__.items()
        if key not in _LEFT_OUT
        and (every or key in names.attributes or key in _HOOKS)
        and not (type(value) is OrderedDict and not value)
    }


def _is_of_torch(kind: type) -> bool:
    return kind.__module__.startswith("torch.")


def names_read(roots: Iterable[object], modules: Iterable[nn.Module]) -> Words:
    """All names that the functions among the roots and the modules' classes read."""
    found = [words_of(part.functions) for root in roots for part in parts_of(root)]
    found += [words_of(_forward_of(kind)) for kind in {type(m) for m in modules}]
    found += [words_of(followed(m.__dict__["forward"], None)) for m in modules if "forward" in m.__dict__]
    return joined(found)


def _forward_of(kind: Any) -> tuple[FunctionType, ...]:
    """The forward of a class, and what it calls; nothing for torch's own classes."""
    return () if _is_of_torch(kind) else _known_forward_of(kind)


@lru_cache(maxsize=1024)
def _known_forward_of(kind: Any) -> tuple[FunctionType, ...]:
    return tuple(followed(getattr(kind, "forward", None), kind))


def modules_of(roots: Iterable[object]) -> list[nn.Module]:
    """All modules among the roots and what functions among them read, each once, the roots' own first."""
    found: dict[nn.Module, None] = {}
    for root in roots:
        tops = [root] if isinstance(root, nn.Module) else [value for _, value in _reads(root)]
        for top in tops:
            if isinstance(top, nn.Module) and top not in found:
                found.update(dict.fromkeys(top.modules()))
    return list(found)


def variables(function: object, *, on_gpu: bool) -> list[tuple[str, object]]:
    """What a function reads from outside of itself, with the names that it has there: variables, ``config.rate``."""
    return _seen(_reads(function), on_gpu)


def variables_of_modules(modules: Sequence[nn.Module], *, on_gpu: bool) -> list[tuple[str, object]]:
    """What the forward passes of the modules read from outside, and of objects that they hold, as ``config.rate``."""
    parts = [_Part(_forward_of(kind), None) for kind in dict.fromkeys(map(type, modules))]
    found = [pair for part in parts if part.functions for pair in _seen(_reads_of(part), on_gpu)]
    for module in modules:
        functions = _forward_of(type(module))
        if functions:
            words = words_of(functions)
            held = (p for n, v in _of_owner(module, words) for p in _inside(n, v, words, _DEEPEST))
            found += _seen(held, on_gpu)
        if "forward" in module.__dict__:
            found += variables(module.__dict__["forward"], on_gpu=on_gpu)
    return found


def _seen(pairs: Iterable[tuple[str, Any]], on_gpu: bool) -> list[tuple[str, object]]:
    return [(name, seen(value, on_gpu=on_gpu)) for name, value in pairs if not isinstance(value, nn.Module)]


class _Part(NamedTuple):
    """Functions, and the object that they are methods of."""

    functions: Sequence[FunctionType]
    owner: Any


def parts_of(function: Any) -> Iterator[_Part]:
    """The functions that run where it is called, by the objects that they are methods of."""
    if isinstance(function, partial):
        yield from parts_of(function.func)
    elif isinstance(function, FunctionType):
        yield _Part(followed(function, None), None)
    elif not isinstance(function, nn.Module):
        owner = getattr(function, "__self__", function)
        method = getattr(function, "__func__", getattr(type(function), "__call__", None))  # noqa: B004
        yield _Part(followed(method, type(owner)), owner)
    else:
        yield _Part(_forward_of(type(function)), function)


def _reads(function: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(function, partial):
        yield from ((f"argument {number}", value) for number, value in enumerate(function.args))
        yield from function.keywords.items()
    for part in parts_of(function):
        yield from _reads_of(part)


def _reads_of(part: _Part) -> Iterator[tuple[str, Any]]:
    words = words_of(part.functions)
    for name, value in (*_outside(part, words), *_of_owner(part.owner, words)):
        yield from _inside(name, value, words, _DEEPEST)


def _outside(part: _Part, words: Words) -> Iterator[tuple[str, Any]]:
    for function in part.functions:
        for name, _, value in filled(function):
            if name in words.variables:  # else it is only written
                yield name, value
        for name in words.variables & function.__globals__.keys():
            yield name, function.__globals__[name]
        for number, value in enumerate(function.__defaults__ or ()):
            yield f"default {number}", value
        yield from (function.__kwdefaults__ or {}).items()


def _of_owner(owner: Any, words: Words) -> Iterator[tuple[str, Any]]:
    if owner is None or isinstance(owner, ModuleType):
        return
    yield "self", owner
    if isinstance(owner, nn.Module):  # what it holds itself is told apart
        held = ((key, owner.__dict__[key]) for key in words.attributes & owner.__dict__.keys())
        yield from ((f"self.{key}", value) for key, value in held if _parts(value, words))


def _inside(name: str, value: Any, words: Words, depth: int) -> Iterator[tuple[str, Any]]:
    """The value, or what the code may read of it."""
    inner = _parts(value, words) if depth else None
    if not inner:
        yield name, value
        return
    for key, part in inner.items():
        yield from _inside(f"{name}.{key}", part, words, depth - 1)


def _parts(value: Any, words: Words) -> dict[str, Any]:
    if isinstance(value, dict):
        return {key: value[key] for key in words.keys if key in value}
    if isinstance(value, Optimizer) and not isinstance(value, SGDPH):  # ours reads its rates on the device
        rows = ((n, key, part) for n, g in enumerate(value.param_groups) for key, part in g.items())
        state = ((n, key, part) for n, own in enumerate(value.state.values()) for key, part in own.items())
        return {f"param_groups[{n}].{key}": part for n, key, part in rows if key != "params"} | {
            f"state[{n}].{key}": part.data_ptr() for n, key, part in state if isinstance(part, Tensor)
        }
    if isinstance(value, (Tensor, nn.Module, type)) or callable(value):
        return {}
    held = getattr(value, "__dict__", None)
    if not isinstance(held, dict):
        return {}
    return {key: held[key] for key in words.attributes if key in held}
