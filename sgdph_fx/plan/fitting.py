"""What tells a model from the one that a plan was made for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sgdph_fx.plan.entries import ConvolutionEntry
from sgdph_fx.rules.kinds import Conv
from sgdph_fx.rules.modules import rule_of
from sgdph_fx.transform.filters import decoupled_names

if TYPE_CHECKING:
    from sgdph_fx.plan.plan import Plan

__all__ = ["misfits", "parts_of"]


def misfits(plan: Plan, model: nn.Module) -> Iterator[str]:
    """Sentences on what of ``plan`` does not fit ``model``; none if it can be applied."""
    yield from _of_parameters(plan, model)
    modules = dict(model.named_modules())
    for entry in plan.convolutions:
        module = modules.get(entry.name)
        rule = None if module is None else rule_of(module)
        if module is not None and isinstance(rule, Conv):
            yield from _of_convolution(entry, module, rule)


def _of_parameters(plan: Plan, model: nn.Module) -> Iterator[str]:
    decoupled = {entry.weight: entry.shape for entry in plan.decoupled}
    weights, gains = parts_of(decoupled)
    trainable = {weights.get(e.name, e.name): e.shape for e in plan.parameters if e.name not in gains}
    frozen = set(plan.frozen)
    found = dict(model.named_parameters())
    for name, shape in {**decoupled, **trainable}.items():
        if name not in found:
            yield f"{name} is missing{' (is the model prepared already?)' if name in decoupled else ''}"
        elif tuple(found[name].shape) != shape:
            yield f"{name} has shape {tuple(found[name].shape)}, planned {shape}"
        elif name in decoupled and not _has_directions(found[name]):
            kind = f"{found[name].dtype}, {found[name].layout}"
            yield f"{name} is {kind}, and gain and direction are for dense real numbers"
        elif name in trainable and not found[name].requires_grad:
            yield f"{name} is frozen, but was trainable"
    for name, parameter in found.items():
        if name in trainable:
            continue
        if name not in frozen:
            yield f"{name} is not in the plan"
        elif parameter.requires_grad:
            yield f"{name} is trainable, but was frozen"
    yield from (f"{name} is missing" for name in plan.frozen if name not in found)


def _has_directions(weight: Tensor) -> bool:
    return weight.is_floating_point() and weight.layout is torch.strided


def _of_convolution(entry: ConvolutionEntry, module: nn.Module, rule: Conv) -> Iterator[str]:
    """What of a convolution's entry is otherwise in the module that has its name."""
    weight = module._parameters.get(rule.weight)
    planned: dict[str, object] = {
        "transposed": entry.transposed,
        "groups": entry.groups,
        "out_channels": entry.out_channels,
    }
    found: dict[str, object] = {
        "transposed": rule.transposed,
        "groups": getattr(module, "groups", entry.groups),
        "out_channels": getattr(module, "out_channels", entry.out_channels),
    }
    if weight is not None:
        planned["shape"], found["shape"] = entry.shape, tuple(weight.shape)
    for what, value in planned.items():
        if value != found[what]:
            yield f"the convolution {entry.name} has {what} = {found[what]}, planned {value}"


def parts_of(weights: Iterable[str]) -> tuple[dict[str, str], set[str]]:
    """The weight that each direction stands for, and the names of the gains."""
    names = {weight: decoupled_names(weight) for weight in weights}
    directions = {direction: weight for weight, (direction, _) in names.items()}
    return directions, {gain for _, gain in names.values()}
