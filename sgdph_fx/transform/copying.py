"""A copy of a model that stands by itself: its hooks and patched methods use the copy, not the original."""

from __future__ import annotations

import copy
import dis
import functools
import types
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from sgdph_fx.errors import UncopyableModelError
from sgdph_fx.transform.guard import one_at_a_time
from sgdph_fx.transform.references import everything, referents

__all__ = ["copy_of"]

_COMPUTING = (BasePruningMethod, SpectralNorm, WeightNorm)


def copy_of(model: nn.Module) -> nn.Module:
    """A deep copy, with what ``copy.deepcopy`` leaves behind.

    Attributes and gradient hooks of parameters come along. A function among the model's hooks or methods that closes
    over a module or a parameter of ``model``, or has one as a default, does so with its copy in the copy.

    Raises:
        UncopyableModelError: if the model has no deep copy, or the copy would still use parts of the original.
    """
    memo = {
        id(p): _copy_of_sparse(p) for p in model.parameters() if p.layout not in (torch.strided, torch.jagged)
    }
    memo |= {id(tensor): tensor.detach().clone() for tensor in _made_before_each_forward(model)}
    with one_at_a_time(model):
        try:
            # With gradients, TorchScript copies its parameters into results of a computation.
            with torch.no_grad():
                copied: nn.Module = copy.deepcopy(model, memo)
                _complete(model, copied, memo)
        except Exception as error:
            kept = _kept_result(model)
            if kept:
                raise UncopyableModelError(
                    f"{type(model).__name__} cannot be deep-copied: its attribute {kept!r} holds a computed tensor "
                    "with its graph, which torch does not copy. Set it to None, or pass inplace=True to rewrite the "
                    "model itself."
                ) from error
            raise UncopyableModelError(
                f"{type(model).__name__} cannot be deep-copied ({type(error).__name__}: {error}). "
                "Pass inplace=True to rewrite the model itself."
            ) from error
        _Rebinding(model, copied, memo).run()
    return copied


def _copy_of_sparse(parameter: nn.Parameter) -> Any:
    """What PyTorch's own deep copy of a parameter cannot do."""
    return nn.Parameter(parameter.detach().clone(), parameter.requires_grad)


def _made_before_each_forward(model: nn.Module) -> Iterator[Tensor]:
    """Tensors with a graph, which a copy may lack: torch's own hooks make them anew before each forward pass."""
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            name = hook._tensor_name if isinstance(hook, BasePruningMethod) else getattr(hook, "name", "")
            value = module.__dict__.get(name) if isinstance(hook, _COMPUTING) else None
            if isinstance(value, Tensor) and value.grad_fn is not None:
                yield value


def _kept_result(model: nn.Module) -> str:
    """The name of an attribute that holds a computed tensor with its graph; empty if there is none."""
    for owner, module in model.named_modules():
        held = {
            k: v for k, v in module.__dict__.items() if k not in ("_modules", "_buffers")
        } | module._buffers
        for name, value in held.items():
            if any(isinstance(part, Tensor) and part.grad_fn is not None for part in everything([value])):
                return f"{owner}.{name}" if owner else name
    return ""


def _complete(model: nn.Module, copied: nn.Module, memo: dict[int, Any]) -> None:
    """Give parameters what a deep copy drops: whether they are trained, attributes, hooks."""
    for own, new in zip(_every_parameter(model), _every_parameter(copied), strict=True):
        new.requires_grad_(own.requires_grad)
        if new is own:
            continue
        for name, value in own.__dict__.items():
            if name not in new.__dict__:
                setattr(new, name, copy.deepcopy(value, memo))
        for hook in (own._backward_hooks or {}).values():
            new.register_hook(copy.deepcopy(hook, memo))  # type: ignore[no-untyped-call]
        for hook in (own._post_accumulate_grad_hooks or {}).values():
            new.register_post_accumulate_grad_hook(copy.deepcopy(hook, memo))  # type: ignore[no-untyped-call]


def _every_parameter(model: nn.Module) -> Iterator[nn.Parameter]:
    seen: set[nn.Parameter] = set()
    for _, parameter in model.named_parameters(remove_duplicate=False):
        if parameter not in seen:
            seen.add(parameter)
            yield parameter


class _Rebinding:
    """Makes functions and weak references of the copy use the copy."""

    def __init__(self, model: nn.Module, copied: nn.Module, memo: Mapping[int, Any]) -> None:
        self._copied = copied
        self._memo: dict[int, Any] = dict(memo)
        shared = {id(part) for part in _parts(copied)}  # a class may say that its copies share a part
        self._original = {id(part) for part in _parts(model)} - shared
        self._cells: dict[int, types.CellType] = {}

    def run(self) -> None:
        """Rebind all.

        Raises:
            UncopyableModelError: if something still leads to the original.
        """
        for module in self._copied.modules():
            if id(module) not in self._original:
                self._rebind_values(module.__dict__)
                for held in module.__dict__.values():
                    self._rebind_values(held)
                for parameter in module.parameters(recurse=False):
                    self._rebind_values(parameter.__dict__)
                    self._rebind_values(parameter._backward_hooks)
                    self._rebind_values(parameter._post_accumulate_grad_hooks)
        for value in everything([self._copied]):
            if id(value) in self._original or self._names_original(value):
                raise self._refusal()

    def _rebind_values(self, owner: Any) -> None:
        """Rebind what a dictionary holds; hooks stand in one."""
        for key, value in list(owner.items()) if isinstance(owner, dict) else ():
            if isinstance(value, types.FunctionType | weakref.ref):
                owner[key] = self._rebound(value)

    def _rebound(self, value: Any) -> Any:
        """``value`` itself, unless it leads to the original: then what leads to the copy in the same way."""
        if not self._leads_back(value):
            return value
        if id(value) in self._original:
            return self._memo.get(id(value), value)
        if isinstance(value, weakref.ref):
            return weakref.ref(self._rebound(value()))
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, list | tuple | dict | set | types.MethodType | functools.partial):
            return copy.deepcopy(value, self._memo)
        return value

    def _function(self, function: types.FunctionType) -> types.FunctionType:
        cells = tuple(map(self._cell, function.__closure__ or ()))
        defaults = tuple(map(self._rebound, function.__defaults__ or ()))
        new = types.FunctionType(
            function.__code__, function.__globals__, function.__name__, defaults or None, cells
        )
        functools.update_wrapper(new, function)
        new.__dict__.pop("__wrapped__")
        new.__dict__.update(function.__dict__)
        by_name = function.__kwdefaults__ or {}
        new.__kwdefaults__ = {name: self._rebound(value) for name, value in by_name.items()} or None
        return new

    def _cell(self, cell: types.CellType) -> types.CellType:
        if id(cell) not in self._cells:
            (content,) = referents(cell)
            new = self._rebound(content)
            self._cells[id(cell)] = cell if new is content else types.CellType(new)
        return self._cells[id(cell)]

    def _leads_back(self, value: Any) -> bool:
        return any(id(part) in self._original for part in everything([value]))

    def _names_original(self, value: Any) -> bool:
        """Whether a function names a part of the original as a variable of its file, which cannot be rebound."""
        if not isinstance(value, types.FunctionType):
            return False
        named = (value.__globals__.get(name) for name in _global_names(value.__code__))
        return any(id(part) in self._original for part in named)

    def _refusal(self) -> UncopyableModelError:
        functions = [f for f in everything([self._copied]) if isinstance(f, types.FunctionType)]
        found = next((f for f in functions if self._names_original(f) or self._leads_back(f)), None)
        what = "an attribute"
        if found is not None:
            what = f"the function {found.__qualname__} (line {found.__code__.co_firstlineno} of its file)"
        return UncopyableModelError(
            f"A copy of {type(self._copied).__name__} would still use the original: {what} leads to a part of it, and "
            "training the copy would not train that. Pass inplace=True to rewrite the model itself."
        )


def _parts(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        yield module
        yield from module.parameters(recurse=False)
        yield from module.buffers(recurse=False)


@functools.cache
def _global_names(code: types.CodeType) -> frozenset[str]:
    """The variables of its file that a function reads, and those that functions inside of it read."""
    own = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    inner = (_global_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return frozenset(own).union(*inner)
