"""One step of parameters that step alike, where the host decides: their state in, they moved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from sgdph_fx.optim.batches import Batch
from sgdph_fx.optim.group_step import Group, State, average_of
from sgdph_fx.optim.hessian.estimators import averages_raw
from sgdph_fx.optim.processes.shards import is_sharded, local
from sgdph_fx.optim.schedule import Schedule
from sgdph_fx.optim.update import Coefficients, descend
from sgdph_fx.optim.variants import VARIANTS

__all__ = ["apply_step", "cycles_begun", "rectified"]


def apply_step(batch: Batch, state: State, schedule: Schedule, t: int) -> None:
    """Take step t with every parameter of the batch."""
    group = batch.group
    variant = VARIANTS[group["variant"]]
    if batch.missed is None and variant.decay_first_order_gradient:
        _torch_sgd(batch, state)
        return
    averages = None if batch.missed is None else rectified(batch.params, group, state)
    owns = [state[p] for p in batch.params]
    momenta = descend(
        _locals(batch.params),
        _locals(batch.grads),
        _momenta(batch.params, owns),
        averages,
        Coefficients.of(group, variant, cycles_begun(batch, schedule, t)),
        foreach=group["foreach"],
    )
    _keep(momenta, batch.params, owns)


def cycles_begun(batch: Batch, schedule: Schedule, t: Any) -> Any:
    """n of the batch at step t: how many Hessian cycles have begun since it joined."""
    if batch.missed is None:
        return 1
    group = batch.group
    return schedule.cycles_begun(t, group["cycle_start"], group["cycles_before"], batch.missed)


def _torch_sgd(batch: Batch, state: State) -> None:
    group, params = batch.group, batch.params
    owns = [state[p] for p in params] if group["momentum"] != 0 else []
    momenta: list[Tensor | None] = _momenta(params, owns) if owns else [None] * len(params)
    sgd(
        _locals(params),
        _locals(batch.grads),
        momenta,
        weight_decay=group["weight_decay"],
        momentum=group["momentum"],
        lr=group["lr"],
        dampening=0,
        nesterov=False,
        maximize=group["maximize"],
        foreach=group["foreach"],
    )
    if owns:
        _keep(momenta, params, owns)


_PLAIN = {Tensor, nn.Parameter}


def _locals(tensors: list[Tensor]) -> list[Tensor]:
    return tensors if set(map(type, tensors)) <= _PLAIN else [local(t) for t in tensors]


def _momenta(params: Iterable[Tensor], owns: Iterable[dict[str, Any]]) -> list[Tensor | None]:
    """M^G of each, None where it has yet to start; this rank's part of sharded ones, which start as zeros."""
    if set(map(type, params)) <= _PLAIN:
        return [own.get("momentum_buffer") for own in owns]
    found: list[Tensor | None] = []
    for parameter, own in zip(params, owns, strict=True):
        momentum = own.get("momentum_buffer")
        if momentum is None and is_sharded(parameter):
            momentum = own["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)
        found.append(None if momentum is None else local(momentum))
    return found


def _keep(momenta: Sequence[Tensor | None], params: Iterable[Tensor], owns: Iterable[dict[str, Any]]) -> None:
    for parameter, own, momentum in zip(params, owns, momenta, strict=True):
        if own.get("momentum_buffer") is None and not is_sharded(parameter):
            own["momentum_buffer"] = momentum


def rectified(params: Iterable[Tensor], group: Group, state: State) -> list[Tensor]:
    """M^H of each; where estimates are averaged as they are, (4) of the average."""
    averages = [average_of(p, group, state) for p in params]
    if not averages_raw(group):
        return averages
    if group["negative_curvature"] == "zero":
        averages = [average.clamp_min(0) for average in averages]
    variant = VARIANTS[group["variant"]]
    return [variant.rectify(average, group["eps"]) for average in averages]
