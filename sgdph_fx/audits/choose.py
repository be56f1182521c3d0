"""Which parameters are audited, and at which of their numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sgdph_fx.audits.judge import Audited
from sgdph_fx.checks import accept
from sgdph_fx.errors import AuditError
from sgdph_fx.pipeline import plan_as_it_stands
from sgdph_fx.plan.param_groups import build_param_groups
from sgdph_fx.plan.plan import Plan
from sgdph_fx.report.prepared import Prepared

__all__ = ["Found", "drawn", "planned", "second_order"]


@dataclass(frozen=True, slots=True)
class Found:
    """A second-order parameter with what is known of it."""

    what: Audited
    parameter: nn.Parameter


def planned(prepared_or_model: Prepared | nn.Module, inputs: Any) -> tuple[nn.Module, Plan]:
    """The model with its plan; one that is not prepared is analyzed as it stands, out of its wrappers."""
    if isinstance(prepared_or_model, Prepared):
        return prepared_or_model.model, prepared_or_model.report.plan
    example = tuple(inputs) if isinstance(inputs, list) else inputs
    plan = plan_as_it_stands(prepared_or_model, example)
    return accept(prepared_or_model).model, plan


def second_order(model: nn.Module, plan: Plan) -> list[Found]:
    """The second-order parameters, in the model's order.

    Raises:
        AuditError: if there is none, or one that has no Hessian.
    """
    absorbed = {h.where: h.message.partition(":")[0] for h in plan.hints if h.code == "absorbed-bias"}
    found = {
        name: Found(Audited(name, group["role"], tuple(parameter.shape), absorbed.get(name)), parameter)
        for group in build_param_groups(plan, model)
        if group["order"] == 2
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
    }
    if not found:
        raise AuditError(f"{plan.model} has no second-order parameter, so there is nothing to audit.")
    for name, one in found.items():
        _require_fit(name, one.parameter)
    return [found[name] for name, _ in model.named_parameters() if name in found]


def _require_fit(name: str, parameter: nn.Parameter) -> None:
    if not parameter.requires_grad:
        raise AuditError(
            f"{name} is second-order by its plan but frozen now (requires_grad is False), so it has no Hessian. "
            "Unfreeze it, or prepare the model again: frozen parameters are in no group."
        )
    if not parameter.is_floating_point():
        raise AuditError(
            f"{name} is {parameter.dtype}; only real parameters have the Hessian that SGD-PH uses."
        )


def drawn(total: int, count: int | None, generator: torch.Generator) -> Tensor:
    """All of so many places, or ``count`` of them at random; int64, rising."""
    if count is None or count >= total:
        return torch.arange(total, device="cpu")
    return torch.randperm(total, generator=generator, device="cpu")[:count].sort().values
