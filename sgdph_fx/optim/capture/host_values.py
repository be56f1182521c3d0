"""What Python holds beside tensors on the device, and a recording would keep: attributes, hooks, and variables."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from types import FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from sgdph_fx.optim.capture.called_code import (
    HOOKS,
    Part,
    followed,
    forward_of,
    hooks_of,
    is_of_torch,
    is_your_class,
    is_yours,
    outside,
    parts_of,
)
from sgdph_fx.optim.capture.code_words import Words, joined, words_of
from sgdph_fx.optim.capture.seen_values import LONGEST, PLAIN, Several, seen
from sgdph_fx.optim.sgdph import SGDPH
from sgdph_fx.transform.references import slots_of

__all__ = ["attributes", "modules_of", "names_read", "variables", "variables_of_modules"]

_LEFT_OUT = frozenset(nn.Module().__dict__) - HOOKS  # told apart, or of no use in a step
_DEEPEST = 3
_HOLDERS = (dict, SimpleNamespace)
_NO_WORDS = joined(())


def attributes(module: nn.Module, names: Words, *, on_gpu: bool) -> dict[str, object]:
    """What a module holds itself, its hooks too; parameters, buffers, submodules and the mode are told apart.

    Args:
        module: The module.
        names: Those that any code of the step reads; what else a class of yours holds takes no part in it.
        on_gpu: As of :func:`seen`.
    """
    every = is_of_torch(type(module)) or names.finds_by_name
    return {
        key: value
        if type(value) in PLAIN
        else seen(value, on_gpu=on_gpu)  # a call for each would take its time at each step
        for key, value in module.__dict__.items()
        if key not in _LEFT_OUT
        and (every or key in names.attributes or key in HOOKS)
        and not (type(value) is OrderedDict and not value)
    }


def names_read(roots: Iterable[object], modules: Iterable[nn.Module]) -> Words:
    """All names that the functions among the roots and the modules' classes read."""
    found = [words_of(part.functions) for root in roots for part in parts_of(root)]
    found += [words_of(forward_of(kind)) for kind in {type(m) for m in modules}]
    found += [words_of(followed(m.__dict__["forward"], None)) for m in modules if "forward" in m.__dict__]
    return joined(found)


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
    kinds: list[Any] = list(dict.fromkeys(map(type, modules)))
    found: list[tuple[str, object]] = [(f"{kind.__name__}.forward", kind.forward) for kind in kinds]
    for kind in kinds:
        found += _of_class(kind, words_of(forward_of(kind)))
    parts = [Part(forward_of(kind), None) for kind in kinds]
    found += [pair for part in parts if part.functions for pair in _seen(_reads_of(part), on_gpu)]
    found += [pair for module in modules for pair in _held_by(module, on_gpu)]
    for hook in hooks_of(modules):
        found += variables(hook, on_gpu=on_gpu)
    return found


def _held_by(module: nn.Module, on_gpu: bool) -> Iterator[tuple[str, object]]:
    """What a forward of your own reads of objects that the module holds, and what functions there read."""
    functions, own = forward_of(type(module)), module.__dict__
    if functions:
        words = words_of(functions)
        held = (p for n, v in _of_owner(module, words) for p in _inside(n, v, words, _DEEPEST))
        yield from _seen(held, on_gpu)
        for name in words.attributes & own.keys():
            if is_yours(own[name]):
                yield from variables(own[name], on_gpu=on_gpu)
    if "forward" in own:
        yield from variables(own["forward"], on_gpu=on_gpu)


def _seen(pairs: Iterable[tuple[str, Any]], on_gpu: bool) -> list[tuple[str, object]]:
    return [(name, seen(value, on_gpu=on_gpu)) for name, value in pairs if not isinstance(value, nn.Module)]


def _reads(function: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(function, partial):
        yield from _parts(function, _NO_WORDS).items()
    for part in parts_of(function):
        yield from _reads_of(part)


def _reads_of(part: Part) -> Iterator[tuple[str, Any]]:
    words = words_of(part.functions)
    for name, value in (*outside(part, words), *_of_owner(part.owner, words)):
        yield from _inside(name, value, words, _DEEPEST)


def _of_owner(owner: Any, words: Words) -> Iterator[tuple[str, Any]]:
    if owner is None or isinstance(owner, ModuleType):
        return
    yield "self", owner
    if isinstance(owner, nn.Module):  # what it holds itself is told apart
        held = ((key, owner.__dict__[key]) for key in words.attributes & owner.__dict__.keys())
        yield from ((f"self.{key}", value) for key, value in held if _parts(value, words))
    else:
        yield from _of_class(type(owner), words)


def _of_class(kind: type, words: Words) -> Iterator[tuple[str, Any]]:
    """Plain values that a class and its ancestors hold for all of their objects."""
    for ancestor in kind.__mro__ if words.attributes else ():
        held = ((key, ancestor.__dict__[key]) for key in words.attributes & ancestor.__dict__.keys())
        yield from ((f"{ancestor.__name__}.{key}", value) for key, value in held if type(value) in PLAIN)


def _inside(name: str, value: Any, words: Words, depth: int) -> Iterator[tuple[str, Any]]:
    """The value, or what the code may read of it."""
    inner = _parts(value, words) if depth else None
    if not inner:
        yield name, _several(value, words, depth - 1) or value
        return
    for key, part in inner.items():
        yield from _inside(f"{name}.{key}", part, words, depth - 1)


def _several(value: Any, words: Words, depth: int) -> Several | None:
    """Look into a list or dict; None if there is nothing to be read in it, or it is something else."""
    if depth < 0 or not isinstance(value, (list, tuple, dict)) or len(value) > LONGEST:
        return None
    parts = value.values() if isinstance(value, dict) else value
    kinds: list[Any] = list(map(type, parts))
    holders = [p for p, k in zip(parts, kinds, strict=True) if k in _HOLDERS or is_your_class(k)]
    held = [part for part in holders if _parts(part, words)]
    return Several(tuple(tuple(_inside("", part, words, depth)) for part in held)) if held else None


def _parts(value: Any, words: Words) -> dict[str, Any]:
    if isinstance(value, dict):
        return {key: value[key] for key in words.keys if key in value}
    if isinstance(value, (list, tuple)):
        several = enumerate(value if len(value) <= LONGEST else ())
        return {str(number): part for number, part in several if isinstance(part, nn.Module)}
    if isinstance(value, partial):
        arguments = {f"argument {number}": part for number, part in enumerate(value.args)}
        return {"function": value.func, **arguments, **value.keywords}
    if isinstance(value, MethodType):
        return {"function": value.__func__, "self": value.__self__}
    if isinstance(value, Optimizer) and not isinstance(value, SGDPH):  # ours reads its rates on the device
        rows = ((n, key, part) for n, g in enumerate(value.param_groups) for key, part in g.items())
        state = ((n, key, part) for n, own in enumerate(value.state.values()) for key, part in own.items())
        return {f"param_groups[{n}].{key}": part for n, key, part in rows if key != "params"} | {
            f"state[{n}].{key}": part.data_ptr() for n, key, part in state if isinstance(part, Tensor)
        }
    if isinstance(value, (Tensor, nn.Module, type, FunctionType)):
        return {}
    kind: Any = type(value)
    held, slots = getattr(value, "__dict__", None), slots_of(kind)
    held = held if isinstance(held, dict) else {}
    if slots:
        held = {**held, **{key: getattr(value, key) for key in slots if hasattr(value, key)}}
    found = {"class": kind} if callable(value) else {}
    if words.finds_by_name and kind.__module__ == "types" and not isinstance(value, ModuleType):
        return found | held  # a namespace of options, of which any may be asked for
    return found | {key: held[key] for key in words.attributes if key in held}
