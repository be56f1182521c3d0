"""What code comes to from a value by the names that it reads: parts of objects, classes, files, lists and dicts."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from types import FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer

from sgdph_fx.optim.capture.called_code import is_your_class, is_your_file
from sgdph_fx.optim.capture.code_words import Words
from sgdph_fx.optim.capture.seen_values import LONGEST, Several
from sgdph_fx.optim.sgdph import SGDPH
from sgdph_fx.transform.references import slots_of

__all__ = ["Found", "elements", "is_holder", "parts_in", "reach"]

_DEEPEST = 6
"""How many dots are followed, as in ``trainer.config.loss.rate``."""
_DEEPEST_IN_LIBRARIES = 3

_HOLDERS = (dict, SimpleNamespace)
_LISTS = (list, tuple, set, frozenset, deque)
_UNBOUND = (FunctionType, staticmethod, classmethod, property)


class Found(NamedTuple):
    """A value that code may read.

    Args:
        name: As the code has it: ``config.rate``.
        value: The value; of a list or dict of objects, what may be read of each.
        held: The value itself; None if no code of it is followed.
        is_last: Whether it is looked at as a whole, and not by its parts.
    """

    name: str
    value: Any
    held: Any
    is_last: bool


def reach(name: str, value: Any, words: Words, depth: int = _DEEPEST) -> Iterator[Found]:
    """The value, and what code with these words may read of it."""
    if isinstance(value, ModuleType) and not is_your_file(value.__name__):
        yield from _of_library(name, value, words, min(depth, _DEEPEST_IN_LIBRARIES))
        return
    inner = parts_in(value, words) if depth else None
    if not inner:
        yield Found(name, _several(value, words, depth - 1) or value, value, is_last=True)
        return
    yield Found(name, value, value, is_last=False)
    for key, part in inner.items():
        yield from reach(f"{name}.{key}", part, words, depth - 1)


def _of_library(name: str, module: ModuleType, words: Words, depth: int) -> Iterator[Found]:
    """What is read of a library, which somebody may exchange; its code is not followed."""
    for key, part in parts_in(module, words).items():
        if not isinstance(part, ModuleType):
            yield Found(f"{name}.{key}", part, None, is_last=True)
        elif depth > 1:
            yield from _of_library(f"{name}.{key}", part, words, depth - 1)


def elements(value: Any) -> Iterable[Any]:
    """What a list or dict holds, if it is short; nothing for anything else."""
    if isinstance(value, dict):
        return () if len(value) > LONGEST else value.values()
    return value if isinstance(value, _LISTS) and len(value) <= LONGEST else ()


def _several(value: Any, words: Words, depth: int) -> Several | None:
    """Look into a list or dict; None if there is nothing to be read in it, or it is something else."""
    kinds: list[tuple[Any, Any]] = [(part, type(part)) for part in elements(value)] if depth > 0 else []
    held = [part for part, kind in kinds if is_holder(kind) and parts_in(part, words)]
    if not held:
        return None
    return Several(
        tuple(
            tuple((f.name, f.value) for f in reach("", part, words, depth) if f.is_last and part is not value)
            for part in held
        )
    )


def is_holder(kind: Any) -> bool:
    """Whether objects of this class hold what code reads by name."""
    return kind in _HOLDERS or is_your_class(kind)


def parts_in(value: Any, words: Words) -> dict[str, Any]:
    """What such code may read of the value, by names; nothing where the value is looked at as a whole."""
    if isinstance(value, (Tensor, nn.Module, FunctionType)):
        return {}
    if isinstance(value, dict):
        names = words.keys if type(value) is dict else words.keys | words.attributes
        return {key: value[key] for key in names if key in value} | _modules(value.items())
    if isinstance(value, (list, tuple)):
        return _modules(enumerate(value if len(value) <= LONGEST else ()))
    if isinstance(value, partial):
        arguments = {f"argument {number}": part for number, part in enumerate(value.args)}
        return {"function": value.func, **arguments, **value.keywords}
    if isinstance(value, MethodType):
        return {"function": value.__func__, "self": value.__self__}
    if isinstance(value, type):
        return _of_class(value, words)
    if isinstance(value, ModuleType):
        return {key: value.__dict__[key] for key in words.attributes & value.__dict__.keys()}
    if isinstance(value, Optimizer) and not isinstance(value, SGDPH):  # ours reads its rates on the device
        return _of_optimizer(value)
    return _of_object(value, words)


def _modules(pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    return {str(key): part for key, part in pairs if isinstance(part, nn.Module)}


def _of_class(kind: type, words: Words) -> dict[str, Any]:
    """What a class of yours and its ancestors hold for all of their objects."""
    return {
        key: ancestor.__dict__[key]
        for ancestor in reversed(kind.__mro__)
        if is_your_file(ancestor.__module__)
        for key in words.attributes & ancestor.__dict__.keys()
        if not isinstance(ancestor.__dict__[key], _UNBOUND)
    }


def _of_optimizer(optimizer: Optimizer) -> dict[str, Any]:
    rows = ((n, key, part) for n, g in enumerate(optimizer.param_groups) for key, part in g.items())
    state = ((n, key, part) for n, own in enumerate(optimizer.state.values()) for key, part in own.items())
    return {f"param_groups[{n}].{key}": part for n, key, part in rows if key != "params"} | {
        f"state[{n}].{key}": part.data_ptr() for n, key, part in state if isinstance(part, Tensor)
    }


def _of_object(value: Any, words: Words) -> dict[str, Any]:
    kind: Any = type(value)
    held, slots = getattr(value, "__dict__", None), slots_of(kind)
    held = held if isinstance(held, dict) else {}
    if slots:
        held = {**held, **{key: getattr(value, key) for key in slots if hasattr(value, key)}}
    found = {"class": kind} if callable(value) else {}
    if words.finds_by_name and kind.__module__ == "types":
        return found | held  # a namespace of options, of which any may be asked for
    return found | {key: held[key] for key in words.attributes if key in held}
