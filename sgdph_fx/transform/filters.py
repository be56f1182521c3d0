r"""A weight as gain and direction: the mathematics, without a module.

The reparameterization is (8) of the paper, taken over each output filter f,

.. math:: W_f = \gamma_f \, V_f / \lVert V_f \rVert ,

with the direction V of the shape of the weight and one gain γ for each output channel. Differences from
``torch.nn.utils.weight_norm``: the gain is ``(C_out,)`` whatever the weight's shape; for a transposed convolution
the filters lie along dimension 1, and with groups there are C_out gains, not C_out / groups; a filter of
zeros keeps output 0, has finite gradients and can leave zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx

__all__ = ["Composition", "Filters", "compose", "decompose", "decoupled_names", "dotted", "filter_numbers"]


@dataclass(frozen=True, slots=True)
class Filters:
    """How the output filters lie in a weight: along dimension 0, or 1 in each group if ``transposed``."""

    transposed: bool = False
    groups: int = 1


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


def compose(direction: Tensor, gain: Tensor, filters: Filters) -> Tensor:
    """The weight γ V / ‖V‖ of (8).

    Args:
        direction: V, of the weight's shape, any floating dtype and device.
        gain: γ, ``(C_out,)``.
        filters: How the filters lie in V.

    Returns:
        The weight, of the shape of V. Where V is zero, it is zero and its gradient finite.
    """
    traced: object = direction
    if isinstance(traced, fx.Proxy):  # one node to torch.fx, which cannot look into it
        node = traced.tracer.create_proxy("call_function", compose, (direction, gain, filters), {})
        return cast(Tensor, node)
    # A compiler fuses what autograd would, and a traced file can hold no Python function.
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return _composed(direction, gain, filters)
    weight: Tensor = Composition.apply(direction, gain, filters)
    return weight


class Composition(torch.autograd.Function):
    r"""γ V / ‖V‖, with a backward of a third of the passes over V that autograd would make of it, or of one.

    With the gradient G by the weight and :math:`\langle\cdot,\cdot\rangle` over a filter,

    .. math:: \partial_\gamma = \langle G, V \rangle / \lVert V \rVert , \qquad
              \partial_V = \frac{\gamma}{\lVert V \rVert}
              \Bigl( G - \frac{\langle G, V \rangle}{\lVert V \rVert^2} V \Bigr) .
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(direction: Tensor, gain: Tensor, filters: Filters) -> Tensor:
        """γ V / ‖V‖."""
        return _composed(direction, gain, filters)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Filters], output: Tensor) -> None:
        """Keep V and γ."""
        direction, gain, ctx.filters = inputs
        ctx.save_for_backward(direction, gain)
        ctx.save_for_forward(direction, gain)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """By V and γ; itself differentiable."""
        direction, gain = ctx.saved_tensors
        norm = _positive_norms(direction, ctx.filters)
        if not ctx.filters.transposed and _torch_has_one_pass(direction, gain, grad):
            one_pass = torch.ops.aten._weight_norm_interface_backward.default
            by_direction, by_gain = one_pass(grad, direction, gain.view_as(norm), norm, 0)
            return by_direction, by_gain.view_as(gain), None
        v, g = _stacked(direction, ctx.filters), _stacked(grad, ctx.filters)
        by_gain = _dots(g, v, ctx.filters) / norm
        # In place once the memory is our own: to touch fresh memory takes longer than the arithmetic.
        by_direction = torch.addcmul(g, v, by_gain / -norm).mul_(gain.view_as(norm) / norm)
        return by_direction.view_as(direction), by_gain.reshape(gain.shape), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, by_gain: Tensor, _: None) -> Tensor:
        """Along V̇ and γ̇."""
        direction, gain = ctx.saved_tensors
        v, dv = _stacked(direction, ctx.filters), _stacked(tangent, ctx.filters)
        norm = _positive_norms(direction, ctx.filters)
        unit = v / norm
        turned = (dv - unit * _dots(dv, unit, ctx.filters)) / norm
        pushed: Tensor = gain.view_as(norm) * turned + by_gain.view_as(norm) * unit
        return pushed.view_as(direction)


def _torch_has_one_pass(direction: Tensor, *others: Tensor) -> bool:
    """Whether the kernel behind torch's weight norm, which cannot be differentiated, takes these tensors."""
    return (
        not torch.is_grad_enabled()
        and direction.device.type in ("cpu", "cuda")
        and direction.dtype in (torch.float32, torch.float64)
        and all(t.dtype == direction.dtype for t in others)
        and all(type(t) in (Tensor, torch.nn.Parameter) and t.is_contiguous() for t in (direction, *others))
    )


def _composed(direction: Tensor, gain: Tensor, filters: Filters) -> Tensor:
    norm = _positive_norms(direction, filters)
    return (_stacked(direction, filters) * (gain.view_as(norm) / norm)).view_as(direction)


@torch.no_grad()
def decompose(weight: Tensor, filters: Filters) -> tuple[Tensor, Tensor]:
    """Direction and gain of ``weight``, such that :func:`compose` gives it back to the bit.

    A filter of zeros gets gain 0 and a fixed pseudo-random unit direction: the output stays 0, and the
    gradient by the gain lets the filter leave zero.

    Returns:
        The direction, which is ``weight`` itself unless a filter is zero, and the gain ``(C_out,)``.
    """
    norm = _norms(weight, filters)
    gain = norm.flatten().clone()
    if weight.is_meta or bool((norm != 0).all()):
        return weight, gain
    generator = torch.Generator("cpu").manual_seed(0)
    filler = torch.randn(weight.shape, generator=generator, dtype=torch.float64, device="cpu")
    filler = (_stacked(filler, filters) / _norms(filler, filters)).to(weight)
    return torch.where(norm == 0, filler, _stacked(weight, filters)).view_as(weight), gain


def filter_numbers(shape: Sequence[int], filters: Filters) -> Tensor:
    """The output filter that each number of a weight of ``shape`` belongs to, as integers of that shape.

    >>> filter_numbers((2, 2, 1), Filters(transposed=True, groups=2)).flatten().tolist()
    [0, 1, 2, 3]
    """
    places = _stacked(torch.empty(tuple(shape), device="meta"), filters)
    own = [places.shape[d] if d in _own_dims(filters) else 1 for d in range(places.dim())]
    count = torch.Size(own).numel()
    return torch.arange(count, device="cpu").view(own).expand(places.shape).reshape(tuple(shape))


def _stacked(weight: Tensor, filters: Filters) -> Tensor:
    """A view in which an output filter is one index of dimension 0, or of (0, 2) if transposed."""
    if not filters.transposed:
        return weight
    return weight.view(filters.groups, weight.shape[0] // filters.groups, *weight.shape[1:])


def _norms(weight: Tensor, filters: Filters) -> Tensor:
    """‖·‖ of each output filter, shaped to be multiplied with :func:`_stacked`."""
    stacked = _stacked(weight, filters)
    norms: Tensor = torch.linalg.vector_norm(stacked, dim=_inner_dims(stacked, filters), keepdim=True)
    return norms


def _positive_norms(weight: Tensor, filters: Filters) -> Tensor:
    """The same, and 1 for a filter of zeros."""
    norms = _norms(weight, filters)
    return norms.masked_fill(norms == 0, 1)


def _dots(a: Tensor, b: Tensor, filters: Filters) -> Tensor:
    """⟨a, b⟩ of each output filter, of two that are stacked, shaped as the norms are."""
    return (a * b).sum(_inner_dims(a, filters), keepdim=True)


def _inner_dims(stacked: Tensor, filters: Filters) -> list[int]:
    return [d for d in range(stacked.dim()) if d not in _own_dims(filters)]


def _own_dims(filters: Filters) -> tuple[int, ...]:
    return (0, 2) if filters.transposed else (0,)
