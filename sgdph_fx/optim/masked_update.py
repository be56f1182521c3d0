"""The arithmetic of one step where only the device knows whether it may be taken: nothing is read by the host.

A step that may not be taken leaves each number as it was: results are chosen by ``torch.where``, inside torch's fused
kernel, or multiplied by one and moved by zero.
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

__all__ = ["Decision", "descend_where", "sgd_where"]

# The fused kernel reads a learning rate on the device in single precision.
_FUSED = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """Whether a step may be taken, one number on the device in each form that kernels ask for.

    Args:
        allowed: Whether it may be taken, bool.
        refused: Whether it may not, bool.
        found_inf: 1 where it may not be taken, else 0; float32, as torch's fused kernels take it.
    """

    allowed: Tensor
    refused: Tensor
    found_inf: Tensor

    @classmethod
    def of(cls, allowed: Tensor) -> Decision:
        """Make all forms of one bool on the device."""
        refused = torch.logical_not(allowed)
        return cls(allowed, refused, refused.to(torch.float32))


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Second-order parameters of one dtype and device, with what belongs to each."""

    params: list[Tensor]
    grads: list[Tensor]
    momenta: list[Tensor]
    averages: list[Tensor]


def descend_where(
    decision: Decision,
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    momenta: Sequence[Tensor],
    averages: Sequence[Tensor] | None,
    c: Coefficients,
) -> None:
    """Move ``params`` in place by (6), D, (7) and line 13 of Algorithm 1, if the device allows it.

    Args:
        decision: Whether it does.
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
        if averages is None:  # weights: long enough each by itself
            for p, g, m in zip(*rows, strict=True):
                _descend_plain(decision.allowed, p, g, m, c)
        else:
            _descend_newton(decision, _Rows(*_lines(*rows)), c)


def _descend_plain(allowed: Tensor, p: Tensor, g: Tensor, m: Tensor, c: Coefficients) -> None:
    momentum = m * c.keep + (-g if c.maximize else g) * c.take
    direction = momentum if c.weight_decay == 0 else momentum + p * c.weight_decay
    p.copy_(torch.where(allowed, p - direction * _like(c.lr, direction), p))
    m.copy_(torch.where(allowed, momentum, m))


def _descend_newton(decision: Decision, rows: _Rows, c: Coefficients) -> None:
    """Channel-wise parameters are short and many, so each line is one multi-tensor kernel for all.

    Where the step may not be taken, gradients and the rate are zero, and momentum and parameters are kept by a factor
    of one.
    """
    precise = torch.float64 if rows.params[0].dtype == torch.float64 else torch.float32
    mask = decision.allowed.to(precise)
    gradients = _masked(decision, rows.grads)
    torch._foreach_mul_(rows.momenta, torch.rsub(mask, 1, alpha=1 - c.keep))
    torch._foreach_add_(rows.momenta, gradients, alpha=-c.take if c.maximize else c.take)
    rate = mask * c.lr
    moves = _moves(rows, rate, c, precise)
    if c.weight_decay != 0:
        torch._foreach_mul_(rows.params, torch.rsub(rate, 1, alpha=c.weight_decay).to(precise))
    torch._foreach_sub_(rows.params, moves)


def _moves(rows: _Rows, rate: Tensor, c: Coefficients, precise: torch.dtype) -> list[Tensor]:
    """τ D of each, without the decay."""
    divisors = list(torch._foreach_add(rows.averages, c.damping))
    if c.cap is None:
        moves = list(torch._foreach_div(rows.momenta, divisors))
        torch._foreach_mul_(moves, (rate * c.scale).to(precise))
        return moves
    torch._foreach_reciprocal_(divisors)
    torch._foreach_mul_(divisors, (torch.ones_like(rate) * c.scale).to(precise))
    torch._foreach_clamp_max_(divisors, c.cap)
    torch._foreach_mul_(divisors, rows.momenta)
    torch._foreach_mul_(divisors, rate.to(precise))
    return divisors


def _lines(*columns: list[Tensor]) -> list[list[Tensor]]:
    """The tensors with one dimension each where their memory has no gaps: multi-tensor kernels want equal strides."""
    lines = [
        [t.reshape(-1) for t in row] if all(t.is_contiguous() for t in row) else list(row)
        for row in zip(*columns, strict=True)
    ]
    return [list(column) for column in zip(*lines, strict=True)]


def _masked(decision: Decision, gradients: list[Tensor]) -> list[Tensor]:
    """Copies of the gradients, in one memory; zeros where the step may not be taken."""
    flat = torch.cat([g.reshape(-1) for g in gradients]).masked_fill_(decision.refused, 0)
    parts = torch.split(flat, [g.numel() for g in gradients])
    return [part.view(g.shape) for part, g in zip(parts, gradients, strict=True)]


def sgd_where(
    decision: Decision,
    params: list[Tensor],
    grads: list[Tensor],
    momenta: list[Tensor],
    group: dict[str, Any],
    lr: Number,
) -> None:
    """torch's SGD with momentum, if the device allows it: by its fused kernel where that takes the tensors.

    Args:
        decision: Whether the device allows it.
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
            found_inf=decision.found_inf,
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=lr.to(torch.float32) if isinstance(lr, Tensor) else float(lr),
            dampening=0,
            nesterov=False,
            maximize=group["maximize"],
        )
    for i in others:
        _sgd_one(decision.allowed, params[i], grads[i], momenta[i] if momenta else None, group, lr)


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
