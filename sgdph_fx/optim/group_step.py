"""One group's part of one step: its state in, its parameters moved."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, MutableMapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from sgdph_fx.optim.hessian.estimators import averages_raw
from sgdph_fx.optim.processes.shards import is_sharded, local, piece
from sgdph_fx.optim.schedule import Schedule
from sgdph_fx.optim.update import Coefficients, descend, refresh
from sgdph_fx.optim.variants import VARIANTS

__all__ = [
    "LACKS_CURVATURE",
    "Group",
    "Partition",
    "State",
    "apply_step",
    "average_of",
    "init_state",
    "is_state_initialization",
    "lacks_curvature",
    "local_estimate",
    "partition",
    "rectified",
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


class Partition(NamedTuple):
    """The parameters of a group that have a gradient.

    Args:
        newton: Those that take Newton-type steps, by how many Hessian cycles they have missed.
        plain: The others.
    """

    newton: Mapping[int, list[Tensor]]
    plain: list[Tensor]


def partition(
    group: Group, state: State, schedule: Schedule, paired: Container[int] = frozenset()
) -> Partition:
    """Tell who takes which step; a parameter whose ``id`` is in ``paired`` steps with its partner."""
    newton: dict[int, list[Tensor]] = {}
    plain = []
    missed = group.get("cycles_missed") or repeat(0)
    for parameter, joined_late in zip(group["params"], missed, strict=False):
        if parameter.grad is None or id(parameter) in paired:
            continue
        if takes_newton_steps(parameter, group, state, schedule):
            newton.setdefault(joined_late, []).append(parameter)
        else:
            plain.append(parameter)
    return Partition(newton, plain)


def apply_step(
    group: Group, state: State, schedule: Schedule, t: int, paired: Container[int] = frozenset()
) -> None:
    """Take step t with every parameter of the group that has a gradient and is not in ``paired``."""
    newton, plain = partition(group, state, schedule, paired)
    for joined_late, params in newton.items():
        begun = schedule.cycles_begun(t, group["cycle_start"], group["cycles_before"], joined_late)
        _descend(params, group, state, begun, rectified(params, group, state))
    if plain and VARIANTS[group["variant"]].decay_first_order_gradient:
        _torch_sgd(plain, group, state)
    elif plain:
        _descend(plain, group, state, 1, None)


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


def _descend(
    params: list[Tensor], group: Group, state: State, cycles_begun: int, averages: list[Tensor] | None
) -> None:
    momenta = descend(
        [local(p) for p in params],
        _grads(params),
        _momenta(params, state),
        averages,
        Coefficients.of(group, VARIANTS[group["variant"]], cycles_begun),
        foreach=group["foreach"],
    )
    _keep(momenta, params, state)


def _torch_sgd(params: list[Tensor], group: Group, state: State) -> None:
    momenta: list[Tensor | None] = [None] * len(params)
    if group["momentum"] != 0:
        momenta = _momenta(params, state)
    sgd(
        [local(p) for p in params],
        _grads(params),
        momenta,
        weight_decay=group["weight_decay"],
        momentum=group["momentum"],
        lr=group["lr"],
        dampening=0,
        nesterov=False,
        maximize=group["maximize"],
        foreach=group["foreach"],
    )
    if group["momentum"] != 0:
        _keep(momenta, params, state)


def _momenta(params: list[Tensor], state: State) -> list[Tensor | None]:
    """M^G of each, None where it has yet to start; this rank's part of sharded ones, which start as zeros."""
    for parameter in params:
        if is_sharded(parameter) and "momentum_buffer" not in state[parameter]:
            state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)
    found = (state[p].get("momentum_buffer") for p in params)
    return [None if momentum is None else local(momentum) for momentum in found]


def _keep(momenta: Sequence[Tensor | None], params: list[Tensor], state: State) -> None:
    for parameter, momentum in zip(params, momenta, strict=True):
        if not is_sharded(parameter):
            state[parameter]["momentum_buffer"] = momentum


def rectified(params: list[Tensor], group: Group, state: State) -> list[Tensor]:
    """M^H of each; where estimates are averaged as they are, (4) of the average."""
    averages = [average_of(p, group, state) for p in params]
    if not averages_raw(group):
        return averages
    if group["negative_curvature"] == "zero":
        averages = [average.clamp_min(0) for average in averages]
    variant = VARIANTS[group["variant"]]
    return [variant.rectify(average, group["eps"]) for average in averages]


def average_of(parameter: Tensor, group: Group, state: State) -> Tensor:
    """M^H of the parameter, this rank's part of it; made if it is not there yet."""
    own = state[parameter]
    if "hessian_average" not in own:
        start = 0.0 if averages_raw(group) else VARIANTS[group["variant"]].initial_average(group["eps"])
        own["hessian_average"] = torch.full_like(parameter, start, requires_grad=False)
    return local(own["hessian_average"])


def _grads(params: list[Tensor]) -> list[Tensor]:
    return [local(p.grad) for p in params if p.grad is not None]
