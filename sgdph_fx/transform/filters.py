r"""A weight as gain and direction: the mathematics, without a module.

The reparameterization is (8) of the paper, taken over each output filter f,

.. math:: W_f = \gamma_f \, V_f / \lVert V_f \rVert ,

with the direction V of the shape of the weight and one gain γ for each output channel. Differences from
``torch.nn.utils.weight_norm``: the gain is ``(C_out,)`` whatever the weight's shape; for a transposed convolution
the filters lie along dimension 1, and with groups there are C_out gains, not C_out / groups; a filter of
zeros keeps output 0, has finite gradients and can leave zero.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, fx
from torch.autograd import forward_ad

from sgdph_fx.transform import fused_weight
from sgdph_fx.transform.filter_layout import (
    Filters,
    broad,
    dots,
    filter_numbers,
    norms,
    positive_norms,
    stacked,
)

__all__ = [
    "Composition",
    "Filters",
    "along_direction",
    "compose",
    "decompose",
    "decoupled_names",
    "dotted",
    "filter_numbers",
    "gradients",
]


def dotted(path: str, leaf: str) -> str:
    """Name of the attribute ``leaf`` of the module at ``path``, which is empty for the root."""
    return f"{path}.{leaf}" if path else leaf


def decoupled_names(weight: str) -> tuple[str, str]:
    """Names of the direction and the gain that replace the parameter ``weight``.

    >>> decoupled_names("features.0.weight")
    ('features.0.direction', 'features.0.gain')
    >>> decoupled_names("stem.kernel")
    ('stem.kernel_direction', 'stem.kernel_gain')
    """
    owner, dot, leaf = weight.rpartition(".")
    stem = owner + dot + ("" if leaf == "weight" else f"{leaf}_")
    return f"{stem}direction", f"{stem}gain"


def compose(direction: Tensor, gain: Tensor, filters: Filters, dtype: torch.dtype | None = None) -> Tensor:
    """The weight γ V / ‖V‖ of (8).

    Args:
        direction: V, of the weight's shape, any floating dtype and device.
        gain: γ, ``(C_out,)``.
        filters: How the filters lie in V.
        dtype: Of the weight, where that is not V's: it is computed in V's and rounded once.

    Returns:
        The weight, of the shape of V. Where V is zero, it is zero and its gradient finite.
    """
    traced: object = direction
    if isinstance(traced, fx.Proxy):  # one node to torch.fx, which cannot look into it
        given = (direction, gain, filters) if dtype is None else (direction, gain, filters, dtype)
        return cast(Tensor, traced.tracer.create_proxy("call_function", compose, given, {}))
    # A compiler fuses what autograd would, and a traced file can hold no Python function.
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        weight = along_direction(direction, gain, positive_norms(direction, filters), filters)
    elif _in_transform():
        weight = TransformedComposition.apply(direction, gain, filters)
    else:
        composed: Tensor = Composition.apply(direction, gain, filters, dtype or direction.dtype)
        return composed
    return weight if dtype is None else weight.to(dtype)


def along_direction(direction: Tensor, length: Tensor, norm: Tensor, filters: Filters) -> Tensor:
    """Scale each filter of V to a length: ℓ V / ‖V‖.

    Args:
        direction: V.
        length: ℓ, ``(C_out,)``.
        norm: ‖V‖ of each filter, and 1 for one of zeros, as :class:`Composition` saves it, ``(C_out,)``.
        filters: How the filters lie in V.
    """
    scale = length / norm
    if not filters.transposed:
        return direction * broad(scale, direction, filters)
    v = stacked(direction, filters)
    return (v * broad(scale, v, filters)).view(direction.shape)


class TransformedComposition(torch.autograd.Function):
    r"""γ V / ‖V‖, with a backward of a third of the passes over V that autograd would make of it, or of one.

    With the gradient G by the weight and :math:`\langle\cdot,\cdot\rangle` over a filter,

    .. math:: \partial_\gamma = \langle G, V \rangle / \lVert V \rVert , \qquad
              \partial_V = \frac{\gamma}{\lVert V \rVert}
              \Bigl( G - \frac{\langle G, V \rangle}{\lVert V \rVert^2} V \Bigr) .

    This form is for the transforms of ``torch.func``, which need a context apart from the computation.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(direction: Tensor, gain: Tensor, filters: Filters) -> Tensor:
        """γ V / ‖V‖."""
        return along_direction(direction, gain, positive_norms(direction, filters), filters)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Filters], output: Tensor) -> None:
        """Keep V and γ."""
        direction, gain, ctx.filters = inputs
        ctx.save_for_backward(direction, gain)
        ctx.save_for_forward(direction, gain)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """By V and γ; itself differentiable."""
        direction, gain, *_ = ctx.saved_tensors
        return *_gradients(grad, direction, gain, positive_norms(direction, ctx.filters), ctx.filters), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, by_gain: Tensor, _: None) -> Tensor:
        """Along V̇ and γ̇."""
        direction, gain, *_ = ctx.saved_tensors
        v, dv = stacked(direction, ctx.filters), stacked(tangent, ctx.filters)
        norm, length, turn = (
            broad(t, v, ctx.filters) for t in (positive_norms(direction, ctx.filters), gain, by_gain)
        )
        unit = v / norm
        along = broad(dots(dv, unit, ctx.filters), v, ctx.filters)
        return (length * ((dv - unit * along) / norm) + turn * unit).view_as(direction)


class Composition(torch.autograd.Function):
    """The same outside of these transforms, where it costs the host a third: the backward keeps ‖V‖, too.

    It rounds the weight to another dtype by itself, which under autocast saves a pass over weight and gradient.
    """

    @staticmethod
    def forward(ctx: Any, direction: Tensor, gain: Tensor, filters: Filters, dtype: torch.dtype) -> Tensor:
        """γ V / ‖V‖."""
        made = fused_weight.composed(direction, gain, filters, dtype)
        if made is None:
            norm = positive_norms(direction, filters)
            made = along_direction(direction, gain, norm, filters).to(dtype), norm
        ctx.filters, ctx.dtype = filters, dtype
        ctx.save_for_backward(direction, gain, made[1])
        ctx.save_for_forward(direction, gain)
        return made[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """By V and γ; itself differentiable."""
        direction, gain, norm = ctx.saved_tensors
        if torch.is_grad_enabled() or forward_ad._current_level >= 0:  # ‖V‖ is differentiated as well
            # By what has been read: an activation checkpoint allows one reading.
            norm = positive_norms(direction, ctx.filters)
            return *_gradients(grad.to(direction.dtype), direction, gain, norm, ctx.filters), None, None
        return *gradients(grad, direction, gain, norm, ctx.filters), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, by_gain: Tensor, *_: None) -> Tensor:
        """Along V̇ and γ̇."""
        return TransformedComposition.jvp(ctx, tangent, by_gain, None).to(ctx.dtype)


def gradients(
    grad: Tensor, direction: Tensor, gain: Tensor, norm: Tensor, filters: Filters
) -> tuple[Tensor, Tensor]:
    """Compute the gradients by V and γ, by one kernel where one takes these tensors; no graph is recorded of that.

    Args:
        grad: G, of the shape of V, and of the weight's dtype.
        direction: V.
        gain: γ, ``(C_out,)``.
        norm: As in :func:`along_direction`.
        filters: How the filters lie in V.
    """
    in_one_pass = None if _in_transform() else fused_weight.gradients(grad, direction, gain, norm, filters)
    return in_one_pass or _gradients(grad.to(direction.dtype), direction, gain, norm, filters)


def _gradients(
    grad: Tensor, direction: Tensor, gain: Tensor, norm: Tensor, filters: Filters
) -> tuple[Tensor, Tensor]:
    v, g = stacked(direction, filters), stacked(grad, filters)
    by_gain = dots(g, v, filters) / norm
    # In place once the memory is our own: to touch fresh memory takes longer than the arithmetic.
    by_direction = torch.addcmul(g, v, broad(by_gain / -norm, v, filters))
    by_direction.mul_(broad(gain / norm, v, filters))
    return by_direction.view_as(direction), by_gain


def _in_transform() -> bool:
    """Whether a transform of ``torch.func`` is at work."""
    return torch._C._functorch.maybe_current_level() is not None


@torch.no_grad()
def decompose(weight: Tensor, filters: Filters) -> tuple[Tensor, Tensor]:
    """Direction and gain of ``weight``, such that :func:`compose` gives it back to the bit.

    A filter of zeros gets gain 0 and a fixed pseudo-random unit direction: the output stays 0, and the
    gradient by the gain lets the filter leave zero.

    Returns:
        The direction, which is ``weight`` itself unless a filter is zero, and the gain ``(C_out,)``.
    """
    gain = fused_weight.norms(weight, filters)
    gain = norms(weight, filters) if gain is None else gain
    if weight.is_meta or bool((gain != 0).all()):
        return weight, gain
    generator = torch.Generator("cpu").manual_seed(0)
    noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64, device="cpu")
    lengths = norms(noise, filters)
    filler = along_direction(noise, torch.ones_like(lengths), lengths, filters).to(weight)
    v = stacked(weight, filters)
    return torch.where(broad(gain == 0, v, filters), stacked(filler, filters), v).view_as(weight), gain
