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
from torch.optim.sgd import sgd
from torch.utils._foreach_utils import _group_tensors_by_device_and_dtype

from sgdph_fx.optim.update import Coefficients, Number

__all__ = ["descend_where", "sgd_where"]

# The fused kernel reads a learning rate on the device in single precision.
_FUSED = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Parameters of one dtype and device, with what belongs to each."""

    params: list[Tensor]
    grads: list[Tensor]
    momenta: list[Tensor]
    averages: list[Tensor] | None


def descend_where(
    allowed: Tensor,
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    momenta: Sequence[Tensor],
    averages: Sequence[Tensor] | None,
    c: Coefficients,
) -> None:
    """Move ``params`` in place by (6), D, (7) and line 13 of Algorithm 1, if ``allowed``.

    Args:
        allowed: One bool on the device.
        params: Tensors of any shapes and dtypes, on that device.
        grads: Their gradients, without graph; left as they are.
        momenta: Their M^G, changed in place; zeros where nothing has been averaged.
        averages: Their M^H, for the Newton-type direction; None for the plain one, D = M^G.
        c: The numbers; those that change from step to step may be tensors of one number.
    """
    columns = [list(params), list(grads), list(momenta), *([] if averages is None else [list(averages)])]
    batches = _group_tensors_by_device_and_dtype(cast(Any, columns))
    for tensors, _ in batches.values():
        rows = cast(list[list[Tensor]], tensors)
        _descend(allowed, _Rows(rows[0], rows[1], rows[2], None if averages is None else rows[3]), c)


def _descend(allowed: Tensor, rows: _Rows, c: Coefficients) -> None:
    if rows.averages is None:  # weights: long enough each by itself
        for p, g, m in zip(rows.params, rows.grads, rows.momenta, strict=True):
            moved, momentum = _moved(p, g, m, None, c)
            p.copy_(torch.where(allowed, moved, p))
            m.copy_(torch.where(allowed, momentum, m))
        return
    # Channel-wise parameters: short, and many, so as one.
    flat = [_flat(column) for column in (rows.params, rows.grads, rows.momenta, rows.averages)]
    moved, momentum = _moved(flat[0], flat[1], flat[2], flat[3], c)
    _write(rows.params, torch.where(allowed, moved, flat[0]))
    _write(rows.momenta, torch.where(allowed, momentum, flat[2]))


def _moved(
    parameter: Tensor, gradient: Tensor, momentum: Tensor, average: Tensor | None, c: Coefficients
) -> tuple[Tensor, Tensor]:
    gradient = -gradient if c.maximize else gradient
    momentum = momentum * c.keep + gradient * c.take
    direction = momentum
    if average is not None:
        divisor = average + c.damping
        if isinstance(c.floor, Tensor) or c.floor != 0:
            divisor = torch.clamp_min(divisor, _like(c.floor, divisor))
        direction = momentum / divisor * _like(c.scale, divisor)
    if c.weight_decay != 0:
        direction = direction + parameter * c.weight_decay
    return parameter - direction * _like(c.lr, direction), momentum


def sgd_where(
    allowed: Tensor,
    params: list[Tensor],
    grads: list[Tensor],
    momenta: list[Tensor],
    group: dict[str, Any],
    lr: Number,
) -> None:
    """torch's SGD with momentum, if ``allowed``: by its fused kernel where that takes the tensors.

    Args:
        allowed: One bool on the device.
        params: Tensors of any shapes and dtypes, on that device.
        grads: Their gradients, without graph.
        momenta: Their momentum buffers, changed in place; zeros at first. Empty where the momentum is 0.
        group: Their group.
        lr: τ.
    """
    fused: list[int] = []
    others: list[int] = []
    for place, (p, g) in enumerate(zip(params, grads, strict=True)):
        (fused if _is_fusible(p, g, momenta[place] if momenta else p) else others).append(place)
    if fused:
        sgd(
            [params[i] for i in fused],
            [grads[i] for i in fused],
            [momenta[i] for i in fused] if momenta else [None] * len(fused),
            has_sparse_grad=False,
            foreach=False,
            fused=True,
            grad_scale=None,
            found_inf=torch.logical_not(allowed).to(torch.float32),
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=lr.to(torch.float32) if isinstance(lr, Tensor) else float(lr),
            dampening=0,
            nesterov=False,
            maximize=group["maximize"],
        )
    for i in others:
        _sgd_one(allowed, params[i], grads[i], momenta[i] if momenta else None, group, lr)


def _sgd_one(
    allowed: Tensor, p: Tensor, g: Tensor, momentum: Tensor | None, group: dict[str, Any], lr: Number
) -> None:
    direction = -g if group["maximize"] else g
    if group["weight_decay"] != 0:
        direction = direction + p * group["weight_decay"]
    if momentum is not None:
        direction = momentum * group["momentum"] + direction
    moved = p - direction * _like(lr, direction)
    p.copy_(torch.where(allowed, moved, p))
    if momentum is not None:
        momentum.copy_(torch.where(allowed, direction, momentum))


def _is_fusible(p: Tensor, g: Tensor, momentum: Tensor) -> bool:
    """What torch's fused kernel asks of its lists: one dtype, the same strides, and no gaps."""
    if p.dtype not in _FUSED or not p.dtype == g.dtype == momentum.dtype or not p.numel():
        return False
    last = sum((size - 1) * stride for size, stride in zip(p.shape, p.stride(), strict=True))
    return p.stride() == g.stride() == momentum.stride() and last + 1 == p.numel()


def _like(number: Number, tensor: Tensor) -> Number:
    """A number on the device in the precision of what it multiplies."""
    return number.to(tensor.dtype) if isinstance(number, Tensor) else number


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


def _write(tensors: Sequence[Tensor], flat: Tensor) -> None:
    parts = torch.split(flat, [t.numel() for t in tensors])
    torch._foreach_copy_(list(tensors), [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)])
