"""Plan + Module → ``param_groups``: ordinary groups of torch, which any torch optimizer takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from sgdph_fx.plan.entries import ParameterEntry
from sgdph_fx.plan.plan import Plan

__all__ = ["ParamGroup", "build_param_groups"]

# A parameter group as torch.optim takes it.
ParamGroup = dict[str, Any]


def build_param_groups(plan: Plan, model: nn.Module) -> list[ParamGroup]:
    """The groups of a prepared model: one for each order and role.

    Args:
        plan: The plan.
        model: The model that the plan was applied to.

    Returns:
        Groups with ``params`` and ``param_names`` (as torch keeps them for named parameters), ``order`` (1
        or 2), ``role``, ``name`` (``"second-order gain"``), and ``index``, the place of each parameter in the
        model's registration order.
    """
    position = {row.name: place for place, row in enumerate(plan.parameters)}
    together: dict[tuple[int, str], list[ParameterEntry]] = {}
    for row in plan.parameters:
        together.setdefault((row.order, row.role), []).append(row)
    named: Mapping[str, nn.Parameter] = dict(model.named_parameters())
    return [
        {
            "params": [named[row.name] for row in rows],
            "param_names": [row.name for row in rows],
            "order": order,
            "role": role,
            "name": f"{'second' if order == 2 else 'first'}-order {role}",
            "index": [position[row.name] for row in rows],
        }
        for (order, role), rows in sorted(together.items(), key=lambda item: position[item[1][0].name])
    ]
