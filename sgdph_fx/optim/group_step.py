"""One group's part of one step: its state in, its parameters moved."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from sgdph_fx.curvature.probes import PROBES
from sgdph_fx.optim.hessian_estimate import HessianEstimate
from sgdph_fx.optim.nonfinite import Flag
from sgdph_fx.optim.schedule import Schedule
from sgdph_fx.optim.shards import is_sharded, local, piece
from sgdph_fx.optim.update import Coefficients, descend, refresh
from sgdph_fx.optim.variants import VARIANTS

__all__ = ["apply_step", "init_state", "is_state_initialization", "update_hessian_average"]

Group: TypeAlias = dict[str, Any]
State: TypeAlias = MutableMapping[Tensor, dict[str, Any]]


def update_hessian_average(pending: HessianEstimate, groups: Sequence[Group], state: State) -> Flag | None:
    """Refresh M^H of the due parameter; where its loss did not use it, or it is not finite, leave it.

    Returns:
        Whether it was finite; None where there is nothing to take in.
    """
    parameter, hessian = pending.parameter, pending.hessian
    if parameter is None or hessian is None:
        return None
    group = next(g for g in groups if any(p is parameter for p in g["params"]))
    variant = VARIANTS[group["variant"]]
    if not PROBES[group["probe"]].averaged_signed:
        hessian = variant.rectify(hessian, group["eps"])
    average = _average(parameter, group, state)
    own = piece(hessian, parameter)
    return Flag(refresh(average, own, alpha=group["hessian_momentum"], variant=variant))


def apply_step(group: Group, state: State, schedule: Schedule, t: int) -> None:
    """Take step t with every parameter of the group that has a gradient."""
    present = [p for p in group["params"] if p.grad is not None]
    newton = [p for p in present if group["order"] == 2 and p is not schedule.first_order]
    plain = [p for p in present if group["order"] == 1 or p is schedule.first_order]
    if newton:
        _descend(newton, group, state, schedule.cycles_begun(t), _rectified(newton, group, state))
    if plain and VARIANTS[group["variant"]].decay_first_order_gradient:
        _torch_sgd(plain, group, state)
    elif plain:
        _descend(plain, group, state, 1, None)


def is_state_initialization(groups: Sequence[Group], state: State) -> bool:
    """Whether it is the first step, and all lr and gradients are zero.

    So ``torch.distributed.checkpoint`` has a fresh optimizer make its state, to see what there is to load.
    """
    if state or any(float(group["lr"]) != 0 for group in groups):
        return False
    return not any(bool(g.any()) for group in groups for g in _grads(group["params"]))


def init_state(group: Group, state: State, schedule: Schedule) -> None:
    """Make the state that a step would make, and take none."""
    for parameter in group["params"]:
        if parameter.grad is None:
            continue
        if group["order"] == 2 and parameter is not schedule.first_order:
            _average(parameter, group, state)
        elif group["momentum"] == 0 and VARIANTS[group["variant"]].decay_first_order_gradient:
            continue
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


def _rectified(params: list[Tensor], group: Group, state: State) -> list[Tensor]:
    """M^H of each; where signed estimates are averaged, (4) of the average."""
    averages = [_average(p, group, state) for p in params]
    if not PROBES[group["probe"]].averaged_signed:
        return averages
    variant = VARIANTS[group["variant"]]
    return [variant.rectify(average, group["eps"]) for average in averages]


def _average(parameter: Tensor, group: Group, state: State) -> Tensor:
    own = state[parameter]
    if "hessian_average" not in own:
        signed = PROBES[group["probe"]].averaged_signed
        start = 0.0 if signed else VARIANTS[group["variant"]].initial_average(group["eps"])
        own["hessian_average"] = torch.full_like(parameter, start, requires_grad=False)
    return local(own["hessian_average"])


def _grads(params: list[Tensor]) -> list[Tensor]:
    return [local(p.grad) for p in params if p.grad is not None]
