"""The state of a parameter: made where it is missing, and its Hessian average refreshed."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sgdph_fx.optim.hessian.estimators import averages_raw
from sgdph_fx.optim.processes.shards import local, piece
from sgdph_fx.optim.schedule import Schedule
from sgdph_fx.optim.update import refresh
from sgdph_fx.optim.variants import VARIANTS

__all__ = [
    "LACKS_CURVATURE",
    "Group",
    "State",
    "average_of",
    "init_state",
    "is_state_initialization",
    "lacks_curvature",
    "local_estimate",
    "takes_newton_steps",
    "update_hessian_average",
]

LACKS_CURVATURE = "lacks_curvature"
"""Key in the state of a parameter below an operation without a second derivative."""

Group: TypeAlias = dict[str, Any]
State: TypeAlias = MutableMapping[Tensor, dict[str, Any]]


def update_hessian_average(
    parameter: Tensor, estimate: Tensor, group: Group, state: State, allowed: Tensor | None = None
) -> Tensor:
    """Refresh M^H of a due parameter; where the estimate is not finite, leave it.

    Args:
        parameter: The parameter.
        estimate: What is to be averaged: this rank's part, see :func:`local_estimate`.
        group: The group of ``parameter``.
        state: Of all parameters.
        allowed: One bool on the device: whether to refresh at all. None for yes.

    Returns:
        Whether it was finite, one bool on the device.
    """
    variant = VARIANTS[group["variant"]]
    if not averages_raw(group):
        estimate = variant.rectify(estimate, group["eps"])
    average, alpha = average_of(parameter, group, state), group["hessian_momentum"]
    return refresh(average, estimate, alpha=alpha, variant=variant, allowed=allowed)


def local_estimate(parameter: Tensor, hessian: Tensor | None, *, by_gradient: bool) -> Tensor | None:
    """This rank's numbers of what is to be averaged; None where the loss did not use the parameter."""
    if by_gradient:
        return None if parameter.grad is None else local(parameter.grad).abs()
    return None if hessian is None else piece(hessian, parameter)


def takes_newton_steps(parameter: Tensor, group: Group, state: State, schedule: Schedule) -> bool:
    """Whether the parameter is second-order, has a Hessian, and is not the one that the variant leaves out."""
    if group["order"] != 2 or parameter is schedule.first_order:
        return False
    return group["without_curvature"] != "first-order" or not lacks_curvature(parameter, state)


def lacks_curvature(parameter: Tensor, state: State) -> bool:
    """Whether a product with the parameter's Hessian was tried, and an operation has no second derivative."""
    return parameter in state and bool(state[parameter].get(LACKS_CURVATURE))


def is_state_initialization(groups: Sequence[Group], state: State) -> bool:
    """Whether this is the first step, and all lr and gradients are zero.

    ``torch.distributed.checkpoint`` takes such a step to make a fresh optimizer's state, and see what it can load.
    """
    if state or any(float(group["lr"]) != 0 for group in groups):
        return False
    return not any(bool(g.any()) for group in groups for g in _grads(group["params"]))


def init_state(group: Group, state: State, schedule: Schedule, params: Iterable[Tensor]) -> None:
    """Make the state that a step of these parameters of the group would make, where it is not there yet."""
    for parameter in params:
        if takes_newton_steps(parameter, group, state, schedule):
            average_of(parameter, group, state)
        elif group["momentum"] == 0 and VARIANTS[group["variant"]].decay_first_order_gradient:
            continue
        if state[parameter].get("momentum_buffer") is None:
            state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)


def average_of(parameter: Tensor, group: Group, state: State) -> Tensor:
    """M^H of the parameter, this rank's part of it; made if it is not there yet."""
    own = state[parameter]
    if "hessian_average" not in own:
        start = 0.0 if averages_raw(group) else VARIANTS[group["variant"]].initial_average(group["eps"])
        own["hessian_average"] = torch.full_like(parameter, start, requires_grad=False)
    return local(own["hessian_average"])


def _grads(params: list[Tensor]) -> list[Tensor]:
    return [local(p.grad) for p in params if p.grad is not None]
