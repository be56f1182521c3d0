"""Module → Module: weights into direction and gain, and back.

The person's modules stay their own: a module whose weight is decoupled only changes its class, to a subclass
of what it was, in which ``weight`` is a property that computes γ V / ‖V‖. V starts as the weight
itself, the very same ``Parameter``, and γ as its norms, so that the computed weight is bit-equal to the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sgdph_fx.errors import ModelError
from sgdph_fx.transform.copying import copy_of
from sgdph_fx.transform.filters import Filters, compose, decompose, decoupled_names

__all__ = ["Decoupled", "decouple", "plain_class_of", "restore"]

class Decoupled:
    """What every class made by :func:`decoupled_class` is, beside being the person's own class.

    ``weight`` (or whatever its name) is computed from the parameters ``direction`` and ``gain`` whenever
    it is read; assigning a tensor to it sets both. A checkpoint of the plain module loads: its weight is
    decomposed on the way in.
    """

    plain_class: type[nn.Module]
    _filters: dict[str, Filters]

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.__dict__.get("_filters", ()):
            super().__setattr__(name, value)
            return
        direction, gain = decompose(value.detach(), self._filters[name])
        with torch.no_grad():
            for own, new in zip(decoupled_names(name), (direction, gain), strict=True):
                getattr(self, own).copy_(new)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # The class is made at run time, so it is pickled as what it is made from.
        _, _, *rest = tuple(super().__reduce_ex__(protocol))
        return (_new, (self.plain_class, tuple(self._filters)), *rest)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        for name, filters in self._filters.items():
            if prefix + name in state_dict:
                parts = decompose(state_dict.pop(prefix + name), filters)
                state_dict.update(zip((prefix + n for n in decoupled_names(name)), parts, strict=True))
        super()._load_from_state_dict(state_dict, prefix, *args)  # type: ignore[misc]


def decoupled_class(plain_class: type[nn.Module], names: tuple[str, ...]) -> type[nn.Module]:
    """The subclass of ``plain_class`` in which the parameters ``names`` are computed; always the same one."""
    made = _CLASSES.get((plain_class, names))
    if made is None:
        made = _CLASSES[plain_class, names] = _make_class(plain_class, names)
    return made


_CLASSES: dict[tuple[type[nn.Module], tuple[str, ...]], type[nn.Module]] = {}


def _make_class(plain_class: type[nn.Module], names: tuple[str, ...]) -> type[nn.Module]:
    properties = {name: property(_getter(name)) for name in names}
    body = {"plain_class": plain_class, "__module__": plain_class.__module__, **properties}
    return type(f"Decoupled{plain_class.__name__}", (Decoupled, plain_class), body)


def _getter(name: str) -> Callable[[Any], Tensor]:
    direction, gain = decoupled_names(name)

    # A function, and not one that is partially applied: a compiler reads only functions.
    def computed(module: Any) -> Tensor:
        return compose(getattr(module, direction), getattr(module, gain), module._filters[name])

    return computed


def plain_class_of(module: nn.Module) -> type[nn.Module]:
    """The class that ``module`` has, or had before it was decoupled."""
    return module.plain_class if isinstance(module, Decoupled) else type(module)


def _new(plain_class: type[nn.Module], names: tuple[str, ...]) -> nn.Module:
    made = decoupled_class(plain_class, names)
    return made.__new__(made)


def decouple(model: nn.Module, weights: Mapping[str, Filters], inplace: bool = False) -> nn.Module:
    """Rewrite parameters of ``model`` into direction and gain.

    A parameter that several modules own is rewritten in all of them and stays shared.

    Args:
        model: The model; its classes, attributes, hooks and modes are kept.
        weights: How the filters lie in each parameter to rewrite, by its name in ``named_parameters()``.
        inplace: Rewrite ``model`` itself instead of a deep copy.

    Raises:
        ModelError: if a name that the rewriting needs is taken; nothing has been changed then.
        UncopyableModelError: if ``inplace`` is false and the model cannot be deep-copied.
    """
    model = model if inplace else copy_of(model)
    owners_of = _owners(model)
    plan = [(owners_of[id(model.get_parameter(name))], filters) for name, filters in weights.items()]
    for owners, _ in plan:
        for path, module, name in owners:
            _require_free(path, module, name)
    for owners, filters in plan:
        _decouple_parameter(owners, filters)
    return model


def restore(model: nn.Module, inplace: bool = False) -> nn.Module:
    """Plain parameters again: the inverse of :func:`decouple`.

    Args:
        model: A model that ``prepare`` or a plan's ``apply`` rewrote; one that is plain already is returned so.
        inplace: Restore ``model`` itself instead of a deep copy.

    Returns:
        The model with the keys, shapes, dtypes and order of the original's ``state_dict``; each restored
        weight is the value that the prepared model computed.

    Raises:
        UncopyableModelError: if ``inplace`` is false and the model cannot be deep-copied.
    """
    model = model if inplace else copy_of(model)
    done: set[int] = set()
    for module in model.modules():
        if isinstance(module, Decoupled):
            _restore_module(module, done)
    return model


def _owners(model: nn.Module) -> Mapping[int, list[tuple[str, nn.Module, str]]]:
    """Every place of each parameter, by the parameter's id: path of the module, module, name there."""
    owners: dict[int, list[tuple[str, nn.Module, str]]] = {}
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            owners.setdefault(id(parameter), []).append((path, module, name))
    return owners


def _require_free(path: str, module: nn.Module, name: str) -> None:
    for new in decoupled_names(name):
        if hasattr(module, new):
            place = f"{path} ({type(module).__name__})" if path else type(module).__name__
            raise ModelError(
                f"{place} cannot be decoupled: it has an attribute {new!r} of its own, which would hide the "
                f"parameter that replaces {name!r}. Rename it, or leave the convolution with a rule 'keep'."
            )


def _decouple_parameter(owners: list[tuple[str, nn.Module, str]], filters: Filters) -> None:
    _, first, first_name = owners[0]
    weight = first._parameters[first_name]
    assert weight is not None
    direction, norms = decompose(weight, filters)
    if direction is not weight:
        with torch.no_grad():
            weight.copy_(direction)
    weight.grad = None  # it was the gradient by the weight, not by the direction
    gain = nn.Parameter(norms, requires_grad=weight.requires_grad)
    for _, module, name in owners:
        new = decoupled_names(name)
        _replace(module, {name: dict(zip(new, (weight, gain), strict=True))})
        known = module._filters if isinstance(module, Decoupled) else {}
        module.__dict__["_filters"] = {**known, name: filters}
        module.__class__ = decoupled_class(plain_class_of(module), tuple(module.__dict__["_filters"]))


def _restore_module(module: Any, done: set[int]) -> None:
    for name in module._filters:
        direction, gain = decoupled_names(name)
        weight = module._parameters[direction]
        if id(weight) not in done:  # a shared weight is restored once, by the first of its owners
            with torch.no_grad():
                weight.copy_(getattr(module, name))
            weight.grad = None
            done.add(id(weight))
        _replace(module, {direction: {name: weight}, gain: {}})
    module.__class__ = module.plain_class
    del module.__dict__["_filters"]


def _replace(module: nn.Module, changes: Mapping[str, Mapping[str, nn.Parameter]]) -> None:
    """Put other parameters in the place of some, in the order in which ``named_parameters()`` gives them."""
    old = list(module._parameters.items())
    module._parameters.clear()
    for name, parameter in old:
        module._parameters.update(changes.get(name, {name: parameter}))
