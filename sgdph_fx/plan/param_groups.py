"""Plan + Module → ``param_groups``: ordinary groups of torch, which any torch optimizer takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from sgdph_fx.plan.entries import Option, ParameterEntry
from sgdph_fx.plan.plan import Plan

__all__ = ["ParamGroup", "build_param_groups"]

# A parameter group as torch.optim takes it.
ParamGroup = dict[str, Any]


def build_param_groups(plan: Plan, model: nn.Module) -> list[ParamGroup]:
    """The groups of a prepared model: one for each order and role, and for each set of options that rules gave.

    Args:
        plan: The plan.
        model: The model that the plan was applied to.

    Returns:
        Groups with ``params`` and ``param_names`` (as torch keeps them for named parameters), ``order`` (1
        or 2), ``role``, ``name`` (``"second-order gain"``), ``index``, the place of each parameter in the
        model's registration order, and the options.
    """
    position = {entry.name: place for place, entry in enumerate(plan.parameters)}
    together: dict[tuple[int, str, tuple[tuple[str, Option], ...]], list[ParameterEntry]] = {}
    for entry in plan.parameters:
        together.setdefault((entry.order, entry.role, tuple(entry.options.items())), []).append(entry)
    named: Mapping[str, nn.Parameter] = dict(model.named_parameters())
    return [
        {
            "params": [named[entry.name] for entry in entries],
            "param_names": [entry.name for entry in entries],
            "order": order,
            "role": role,
            "name": _name(order, role, dict(options)),
            "index": [position[entry.name] for entry in entries],
            **dict(options),
        }
        for (order, role, options), entries in together.items()
    ]


def _name(order: int, role: str, options: Mapping[str, Option]) -> str:
    """``second-order gain``, and what sets the group apart from others of that order and role."""
    details = ", ".join(f"{name}={value}" for name, value in options.items())
    return f"{'second' if order == 2 else 'first'}-order {role}{f' ({details})' if details else ''}"
