"""Module → Module: weights into direction and gain, and back.

Your modules stay your own, see :mod:`sgdph_fx.transform.decoupled`. V starts as the weight itself, the very same
``Parameter``, and γ as its norms, so the computed weight is bit-equal to the one before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from sgdph_fx.errors import ModelError, UncopyableModelError
from sgdph_fx.transform.copying import copy_of
from sgdph_fx.transform.decoupled import Decoupled, decoupled_class, plain_class_of
from sgdph_fx.transform.filters import Filters, compose, decompose, decoupled_names, dotted
from sgdph_fx.transform.foreign import DecoupledParameters
from sgdph_fx.transform.guard import one_at_a_time

__all__ = ["Decoupled", "decouple", "decoupled_weights", "plain_class_of", "restore"]

# A place of a parameter: path of the module, the module, the name there.
_Place = tuple[str, nn.Module, str]


def decouple(model: nn.Module, weights: Mapping[str, Filters], inplace: bool = False) -> nn.Module:
    """Rewrite parameters of ``model`` into direction and gain.

    A parameter that several modules own is rewritten in all of them and stays shared. Attributes that you gave to a
    weight are on its direction and on its gain; hooks on its gradient are on the direction.

    Args:
        model: The model; its classes, attributes, hooks and modes are kept.
        weights: How the filters lie in each parameter to rewrite, by its name in ``named_parameters()``.
        inplace: Rewrite ``model`` itself instead of a deep copy.

    Returns:
        The rewritten model.

    Raises:
        ModelError: if a name that the rewriting needs is taken; nothing has been changed then.
        UncopyableModelError: if ``inplace`` is false and the model cannot be deep-copied.

    >>> model = decouple(nn.Sequential(nn.Conv2d(3, 8, 3)), {"0.weight": Filters()})
    >>> [name for name, _ in model.named_parameters()]
    ['0.direction', '0.gain', '0.bias']
    """
    with one_at_a_time(model):
        rewritten = model if inplace else copy_of(model)
        places = _places(rewritten)
        todo = [(places[id(rewritten.get_parameter(name))], filters) for name, filters in weights.items()]
        theirs = frozenset() if inplace else frozenset(model.modules())
        for owners, _ in todo:
            for place in owners:
                _require_own(place, theirs)
                _require_free(*place)
        parts = [decompose(_parameter(owners[0]), filters) for owners, filters in todo]
        for (owners, filters), (direction, norms) in zip(todo, parts, strict=True):
            _decouple_parameter(owners, filters, direction, norms)
    return rewritten


def restore(model: nn.Module, inplace: bool = False) -> nn.Module:
    """Plain parameters again: the inverse of :func:`decouple`.

    Args:
        model: A model that ``prepare`` or a plan's ``apply`` rewrote; one that is plain already is returned as it is.
        inplace: Restore ``model`` itself instead of a deep copy.

    Returns:
        The model with the keys, shapes, dtypes and order of the original's ``state_dict``; each restored
        weight is the value that the prepared model computed.

    Raises:
        ModelError: if a direction or a gain is no parameter any more; nothing has been changed then.
        UncopyableModelError: if ``inplace`` is false and the model cannot be deep-copied.

    >>> from sgdph_fx import prepare
    >>> prepared = prepare(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())).model
    >>> list(restore(prepared).state_dict())
    ['0.weight', '0.bias']
    """
    with one_at_a_time(model):
        plain = model if inplace else copy_of(model)
        modules = {path: m for path, m in plain.named_modules() if isinstance(m, Decoupled)}
        weights: dict[int, Tensor] = {}
        for path, module in modules.items():
            for name, filters in module._filters.items():
                direction, gain = _parts(path, module, name)
                if id(direction) not in weights:
                    with torch.no_grad():
                        weights[id(direction)] = compose(direction, gain, filters)
        with _undone_on_error(modules.values()) if inplace else nullcontext():
            for module in modules.values():
                _restore_module(module, weights)
    return plain


def decoupled_weights(model: nn.Module) -> dict[str, Filters]:
    """How the filters lie in each weight that is decoupled, by the name that it has in the plain model.

    >>> decoupled_weights(nn.Conv2d(3, 8, 3)), decoupled_weights(decouple(nn.Conv2d(3, 8, 3), {"weight": Filters()}))
    ({}, {'weight': Filters(transposed=False, groups=1)})
    """
    found: dict[str, Filters] = {}
    seen: set[int] = set()
    for path, module in model.named_modules():
        for name, filters in module._filters.items() if isinstance(module, Decoupled) else ():
            direction = module._parameters.get(decoupled_names(name)[0])
            if id(direction) not in seen:
                seen.add(id(direction))
                found[dotted(path, name)] = filters
    return found


def _places(model: nn.Module) -> Mapping[int, list[_Place]]:
    """Every place of each parameter, by the parameter's id."""
    places: dict[int, list[_Place]] = {}
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            places.setdefault(id(parameter), []).append((path, module, name))
    return places


def _parameter(place: _Place) -> nn.Parameter:
    _, module, name = place
    parameter = module._parameters[name]
    assert parameter is not None
    return parameter


def _require_own(place: _Place, theirs: frozenset[nn.Module]) -> None:
    path, module, _ = place
    if module in theirs:
        raise UncopyableModelError(
            f"{path} ({type(module).__name__}) is shared by the model and its copy, so rewriting the copy would change "
            "the model. Pass inplace=True to rewrite the model itself."
        )


def _require_free(path: str, module: nn.Module, name: str) -> None:
    for new in decoupled_names(name):
        if hasattr(module, new):
            place = f"{path} ({type(module).__name__})" if path else type(module).__name__
            raise ModelError(
                f"{place} cannot be decoupled: it has an attribute {new!r} of its own, which would hide the "
                f"parameter that replaces {name!r}. Rename it, or leave the convolution with a rule 'keep'."
            )


def _decouple_parameter(owners: Sequence[_Place], filters: Filters, direction: Tensor, norms: Tensor) -> None:
    weight = _parameter(owners[0])
    if direction is not weight:
        with torch.no_grad():
            weight.copy_(direction)
    weight.grad = None  # it was the gradient by the weight, not by the direction
    gain = nn.Parameter(norms, requires_grad=weight.requires_grad)
    gain.__dict__.update(weight.__dict__)
    for _, module, name in owners:
        known = module._filters if isinstance(module, Decoupled) else {}
        new = dict(zip(decoupled_names(name), (weight, gain), strict=True))
        _replace(module, {name: new}, {**known, name: filters})
        module.__class__ = decoupled_class(plain_class_of(module), (*known, name))


def _parts(path: str, module: Any, name: str) -> tuple[nn.Parameter, nn.Parameter]:
    """Direction and gain."""
    found = [module._parameters.get(part) for part in decoupled_names(name)]
    if found[0] is None or found[1] is None:
        raise ModelError(
            f"{path or 'The model'} ({type(module).__name__}) cannot be restored: its direction or gain is no "
            "parameter any more, because a tool such as pruning replaced it. Take that back first."
        )
    return found[0], found[1]


@contextmanager
def _undone_on_error(modules: Iterable[Any]) -> Iterator[None]:
    """Make the modules what they were if something comes in between, such as Ctrl-C: all are restored or none."""
    before = [(m, type(m), m._parameters, m._filters) for m in modules]
    directions = {m._parameters[decoupled_names(name)[0]] for m, *_, filters in before for name in filters}
    numbers = [(direction, direction.detach().clone(), direction.grad) for direction in directions]
    try:
        yield
    except BaseException:
        for module, kind, parameters, filters in before:
            module.__dict__.update(_parameters=parameters, _filters=filters)
            module.__class__ = kind
        for direction, value, gradient in numbers:
            direction.data.copy_(value)
            direction.grad = gradient
        raise


def _restore_module(module: Any, weights: dict[int, Tensor]) -> None:
    changes: dict[str, dict[str, nn.Parameter]] = {}
    for name in module._filters:
        direction, gain = decoupled_names(name)
        weight = module._parameters[direction]
        new = weights.pop(id(weight), None)
        if new is not None:  # a shared weight is restored once, by the first of its owners
            with torch.no_grad():
                weight.copy_(new)
            weight.grad = None
        changes |= {direction: {name: weight}, gain: {}}
    _replace(module, changes, {})
    module.__class__ = module.plain_class
    del module.__dict__["_filters"]


def _replace(
    module: nn.Module, changes: Mapping[str, Mapping[str, nn.Parameter]], filters: Mapping[str, Filters]
) -> None:
    """Put other parameters in the place of some, in the order in which ``named_parameters()`` gives them."""
    new: dict[str, nn.Parameter | None] = {}
    for name, parameter in module._parameters.items():
        new.update(changes.get(name, {name: parameter}))
    module.__dict__["_parameters"] = DecoupledParameters(new, filters) if filters else new
    module.__dict__["_filters"] = dict(filters)
