"""Block → row: which blocks and channels are nothing but rounding, and on which the ones-probe is empty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from torch import Tensor

from sgdph_fx.audits.entries import AuditRow, Empty
from sgdph_fx.curvature import Block

__all__ = ["Audited", "Scale", "judge", "unused"]

KEYS = "the biases of attention keys, which shift all scores of a query alike, and softmax takes such a shift out"
# What they call the projection to queries, keys and values in one.
JOINT = ("qkv", "in_proj")
FEW = 4

# Measured: rounding noise 0.1 and more, in float32 and float64 alike; curvature 1e-5 and 1e-13 at most.
UNSYMMETRIC = 0.01

# What libraries call the projection to keys where it has a module of its own.
KEY_OWNERS = frozenset({"k", "key", "k_proj", "key_proj", "to_k"})


@dataclass(frozen=True, slots=True)
class Audited:
    """One parameter to audit: its name, what it is, and what the analysis says of it if it is absorbed."""

    name: str
    role: str
    shape: tuple[int, ...]
    absorbed: str | None = None


@dataclass(frozen=True, slots=True)
class Scale:
    """What a gradient and a Hessian entry of ordinary size are in this model, to tell rounding from them.

    Args:
        gradient: Median over the second-order parameters of the largest entry of their gradients.
        hessian: The largest entry of any column that was seen.
        epsilon: The rounding unit of the dtype that was computed in.
    """

    gradient: float
    hessian: float
    epsilon: float


def judge(what: Audited, block: Block, scale: Scale) -> AuditRow:
    """The row of one parameter.

    A channel is flat where nothing but rounding is left: its gradient lies below √ε times an ordinary one, its
    Hessian column below √ε times the largest curvature in the model, *and* the column is not symmetric. Size
    alone would take a living parameter for dead: behind a LayerScale of 1e-6, or one class of a thousand, all is
    small. Row sums are zero where they lie below √ε times what they would be without cancellation. A loss that
    is linear in a parameter has a Hessian of exactly zero.
    """
    root = scale.epsilon**0.5
    # Where there is no other channel to compare with, size has to decide, by a stricter bound.
    noise = (block.asymmetry > UNSYMMETRIC) | block.asymmetry.isnan() & (
        block.peak <= scale.epsilon * scale.hessian
    )
    small = (block.peak <= root * scale.hessian) & (block.gradient.abs() <= root * scale.gradient)
    flat = small & noise
    bent = ~flat & (block.peak > 0)
    empty: Empty | None = None
    if not bent.any():
        empty = "flat" if flat.all() else "linear"
    elif block.ones[bent].norm() <= root * block.absolute[bent].norm():
        empty = "shift"
    channels = tuple(block.channels[flat].tolist())
    measurable = empty not in ("flat", "linear") and bool(block.diagonal.any())
    return AuditRow(
        name=what.name,
        role=what.role,
        shape=what.shape,
        channels=tuple(block.channels.tolist()),
        diagonal=tuple(block.diagonal.tolist()),
        ones=tuple(block.ones.tolist()),
        rademacher=tuple(block.draws.mean(0).tolist()),
        off_diagonal=_ratio(block.off, block.diagonal) if measurable else None,
        one_draw_error=_one_draw(block) if measurable else None,
        empty=empty,
        flat=channels,
        reason=_reason(what, empty, channels, block.channels.tolist()),
    )


def unused(what: Audited) -> AuditRow:
    """The row of a parameter that the loss does not depend on."""
    reason = "the loss on this batch does not depend on it"
    return AuditRow(
        what.name, what.role, what.shape, (), (), (), (), None, None, empty="unused", flat=(), reason=reason
    )


def _ratio(part: Tensor, whole: Tensor) -> float:
    return float(part.norm() / whole.norm())


def _one_draw(block: Block) -> float:
    errors = (block.draws - block.diagonal).norm(dim=1)
    return float(errors.square().mean().sqrt() / block.diagonal.norm())


def _reason(what: Audited, empty: Empty | None, flat: Sequence[int], measured: Sequence[int]) -> str:
    if empty == "flat":
        return f"flat: the loss does not change with it{_why_flat(what)}"
    if empty == "linear":
        return "linear: the loss does not bend with it, so its Hessian is zero"
    if empty == "shift":
        return (
            "row sums are zero: the loss does not bend when all its numbers move alike, which a softmax with "
            "cross-entropy takes out of logits, and a layer norm out of channels"
        )
    if not flat:
        return ""
    if _are_keys(what, flat, measured):
        return f"{len(flat)} of {len(measured)} channels are flat, from {flat[0]} to {flat[-1]}: {KEYS}"
    return f"{len(flat)} of {len(measured)} channels are flat: dead units, or something behind takes them out"


def _why_flat(what: Audited) -> str:
    if what.absorbed is not None:
        return f", as {what.absorbed}"
    if KEY_OWNERS.intersection(what.name.split(".")):
        return f": it holds {KEYS}"
    return (
        "; something behind takes it out again, as a batch norm does with a bias, or its units are dead, or "
        "weights behind it are zero"
    )


def _are_keys(what: Audited, flat: Sequence[int], measured: Sequence[int]) -> bool:
    """Queries, keys and values share one bias, in this order; without a name, a few of a sample prove nothing."""
    size = prod(what.shape)
    third = size // 3
    keys = [channel for channel in measured if third <= channel < 2 * third]
    enough = len(flat) >= min(FEW, third) or any(word in what.name for word in JOINT)
    return size == 3 * third and list(flat) == keys and enough
