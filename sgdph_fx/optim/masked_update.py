"""The arithmetic of one step where only the device knows whether it may be taken: nothing is read by the host.

Every result is chosen by ``torch.where`` or inside torch's fused kernel, so a step that may not be taken leaves each
number as it was, to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._foreach_utils import _group_tensors_by_device_and_dtype

from sgdph_fx.optim.stack import Stack
from sgdph_fx.optim.update import Coefficients, Number

__all__ = ["descend_where", "sgd_where"]

# The fused kernel reads a learning rate on the device in single precision.
_FUSED = (torch.float32, torch.float16, torch.bfloat16)
# Apple's devices have such a kernel, which takes no `found_inf`; others may have none.
_FUSED_ON = frozenset({"cpu", "cuda", "xpu"})


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Parameters of one dtype and device, with what belongs to each."""

    params: list[Tensor]
    grads: list[Tensor]
    momenta: list[Tensor]
    averages: list[Tensor] | None


def descend_where(
    bad: Tensor,
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    momenta: Sequence[Tensor],
    averages: Sequence[Tensor] | None,
    c: Coefficients,
) -> None:
    """Move ``params`` in place by (6), D, (7) and line 13 of Algorithm 1, unless ``bad`` is 1.

    Args:
        bad: One float32 on the device, 0 or 1.
        params: Tensors of any shapes and dtypes, on that device.
        grads: Their gradients, without graph; left as they are.
        momenta: Their M^G, changed in place; zeros where nothing has been averaged.
        averages: Their M^H, for the Newton-type direction; None for the plain one, D = M^G.
        c: The numbers; those that change from step to step may be tensors of one number.
    """
    columns = [params, grads, momenta, *([] if averages is None else [averages])]
    fused, others = _sorted(columns, c.keep > 0 and bad.device.type in _FUSED_ON)
    for rows in fused:
        _descend_fused(bad, _Rows(rows[0], rows[1], rows[2], None if averages is None else rows[3]), c)
    if not others[0]:
        return
    for tensors, _ in _group_tensors_by_device_and_dtype(cast(Any, others)).values():
        rows = cast(list[list[Tensor]], tensors)
        _descend(bad == 0, _Rows(rows[0], rows[1], rows[2], None if averages is None else rows[3]), c)


def _sorted(
    columns: Sequence[Sequence[Tensor]], fuse: bool
) -> tuple[list[list[list[Tensor]]], list[list[Tensor]]]:
    """The same columns of what the fused kernel takes, one list for each dtype, and of the rest."""
    places: dict[torch.dtype, list[int]] = {}
    others: list[int] = []
    for place, tensors in enumerate(zip(*columns, strict=True)):
        if fuse and _is_fusible(*tensors):
            places.setdefault(tensors[0].dtype, []).append(place)
        else:
            others.append(place)
    return [_chosen(columns, some) for some in places.values()], _chosen(columns, others)


def _chosen(columns: Sequence[Sequence[Tensor]], places: list[int]) -> list[list[Tensor]]:
    return [[column[i] for i in places] for column in columns]


def _descend_fused(bad: Tensor, rows: _Rows, c: Coefficients) -> None:
    """torch's fused kernel of SGD, once for M^G with a rate of 0, and once for the parameters with D for a gradient."""
    grads = list(torch._foreach_neg(rows.grads)) if c.maximize else rows.grads
    _fused(bad, rows.params, grads, rows.momenta, lr=0.0, momentum=c.keep, take=c.take)
    if rows.averages is None:
        _fused(bad, rows.params, rows.momenta, [], lr=c.lr, weight_decay=c.weight_decay)
        return
    _fused(
        bad,
        rows.params,
        _directions(rows.momenta, rows.averages, c),
        [],
        lr=c.lr,
        weight_decay=c.weight_decay,
    )


def _directions(momenta: list[Tensor], averages: list[Tensor], c: Coefficients) -> list[Tensor]:
    """D of each, without the decay."""
    divisors = list(torch._foreach_add(averages, c.damping))
    scale = _like(c.scale, divisors[0])
    if c.cap is None:
        directions = list(torch._foreach_div(momenta, divisors))
        torch._foreach_mul_(directions, scale)
        return directions
    torch._foreach_reciprocal_(divisors)
    torch._foreach_mul_(divisors, scale)
    torch._foreach_clamp_max_(divisors, c.cap)
    torch._foreach_mul_(divisors, momenta)
    return divisors


def _fused(
    bad: Tensor,
    params: list[Tensor],
    grads: list[Tensor],
    momenta: list[Tensor],
    *,
    lr: Number,
    momentum: float = 0.0,
    take: float = 1.0,
    weight_decay: float = 0.0,
) -> None:
    torch._fused_sgd_(
        params,
        grads,
        momenta,
        weight_decay=weight_decay,
        momentum=momentum,
        lr=lr.to(torch.float32) if isinstance(lr, Tensor) else float(lr),
        dampening=1 - take,
        nesterov=False,
        maximize=False,
        is_first_step=False,
        found_inf=bad,
    )


def _descend(allowed: Tensor, rows: _Rows, c: Coefficients) -> None:
    if rows.averages is None:  # weights: long enough each by itself
        for p, g, m in zip(rows.params, rows.grads, rows.momenta, strict=True):
            moved, momentum = _moved(p, g, m, None, c)
            p.copy_(torch.where(allowed, moved, p))
            m.copy_(torch.where(allowed, momentum, m))
        return
    # Channel-wise parameters: short, and many, so as one.
    params, grads, momenta, averages = map(Stack, (rows.params, rows.grads, rows.momenta, rows.averages))
    moved, momentum = _moved(params.flat, grads.flat, momenta.flat, averages.flat, c)
    params.write(moved, allowed)
    momenta.write(momentum, allowed)


def _moved(
    parameter: Tensor, gradient: Tensor, momentum: Tensor, average: Tensor | None, c: Coefficients
) -> tuple[Tensor, Tensor]:
    gradient = -gradient if c.maximize else gradient
    momentum = momentum * c.keep + gradient * c.take
    direction = momentum
    if average is not None:
        divisor = average + c.damping
        factor = _like(c.scale, divisor) / divisor
        direction = momentum * (factor if c.cap is None else factor.clamp_max(c.cap))
    if c.weight_decay != 0:
        direction = direction + parameter * c.weight_decay
    return parameter - direction * _like(c.lr, direction), momentum


def sgd_where(
    bad: Tensor,
    params: list[Tensor],
    grads: list[Tensor],
    momenta: list[Tensor],
    group: dict[str, Any],
    lr: Number,
) -> None:
    """torch's SGD with momentum, unless ``bad`` is 1: by its fused kernel where that takes the tensors.

    Args:
        bad: One float32 on the device, 0 or 1.
        params: Tensors of any shapes and dtypes, on that device.
        grads: Their gradients, without graph.
        momenta: Their momentum buffers, changed in place; zeros at first. Empty where the momentum is 0.
        group: Their group.
        lr: τ.
    """
    if group["maximize"]:
        grads = list(torch._foreach_neg(grads))
    momentum, decay = group["momentum"], group["weight_decay"]
    fused, others = _sorted([params, grads, *([momenta] if momenta else [])], bad.device.type in _FUSED_ON)
    for rows in fused:
        held = rows[2] if momenta else []
        _fused(bad, rows[0], rows[1], held, lr=lr, momentum=momentum, weight_decay=decay)
    if not others[0]:
        return
    allowed = bad == 0
    for p, g, *rest in zip(*others, strict=True):
        _sgd_one(allowed, p, g, rest[0] if rest else None, group, lr)


def _sgd_one(
    allowed: Tensor, p: Tensor, g: Tensor, momentum: Tensor | None, group: dict[str, Any], lr: Number
) -> None:
    direction = g
    if group["weight_decay"] != 0:
        direction = direction + p * group["weight_decay"]
    if momentum is not None:
        direction = momentum * group["momentum"] + direction
    moved = p - direction * _like(lr, direction)
    p.copy_(torch.where(allowed, moved, p))
    if momentum is not None:
        momentum.copy_(torch.where(allowed, direction, momentum))


def _is_fusible(p: Tensor, g: Tensor, *others: Tensor) -> bool:
    """What torch's fused kernel asks of its lists: one dtype, the same strides, and no gaps."""
    strides = p.stride()
    if p.dtype not in _FUSED or p.dtype is not g.dtype or g.stride() != strides or not p.numel():
        return False
    for t in others:
        if t.dtype is not p.dtype or t.stride() != strides:
            return False
    if p.is_contiguous():
        return True
    return sum((size - 1) * stride for size, stride in zip(p.shape, strides, strict=True)) + 1 == p.numel()


def _like(number: Number, tensor: Tensor) -> Number:
    """A number on the device in the precision of what it multiplies."""
    return number.to(tensor.dtype) if isinstance(number, Tensor) else number
