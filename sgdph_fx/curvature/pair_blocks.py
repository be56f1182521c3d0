"""The 2×2 blocks of two parameters of one shape, channel by channel.

Let γ and β be the scale and the shift of n channels. The Hessian by both has four blocks of n × n numbers. Channel i
has the symmetric matrix

    [[a, c], [c, d]]ᵢ = [[∂²L/∂γᵢ², ∂²L/∂γᵢ∂βᵢ], [∂²L/∂γᵢ∂βᵢ, ∂²L/∂βᵢ²]] .

Two products find it for any vector v of n numbers: H (v, 0) has the parts H_γγ v and H_βγ v, and H (0, v) has H_γβ v
and H_ββ v. A probe reads the diagonal of each of the four as it reads that of one parameter's block. The two readings
of c are averaged, so that the matrix is symmetric whatever v is. Where all four blocks are diagonal, it is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from sgdph_fx.curvature.hvp import block_product, differentiable_gradient
from sgdph_fx.curvature.probes import Probe
from sgdph_fx.curvature.reentrant import reentrant_checkpoints
from sgdph_fx.errors import NoCurvatureError

__all__ = [
    "BlockEntries",
    "Columns",
    "ColumnsOf",
    "columns_by_double_backward",
    "columns_of_gradients",
    "estimate_blocks",
]

Columns: TypeAlias = "tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]"
"""H (v, 0) and H (0, v), each as its parts by γ and by β."""

ColumnsOf: TypeAlias = Callable[[Tensor], Columns]
"""v ↦ both products; v has the shape, dtype and device of γ."""


class BlockEntries(NamedTuple):
    """The matrices [[a, c], [c, d]] of all channels, each entry of the parameters' shape, dtype and device."""

    a: Tensor
    c: Tensor
    d: Tensor


def estimate_blocks(
    columns_of: ColumnsOf, probe: Probe, scale: Tensor, generator: torch.Generator
) -> BlockEntries:
    """Read the 2×2 blocks by a probe.

    Args:
        columns_of: Takes the two products.
        probe: Chooses v, and reads the diagonals.
        scale: γ.
        generator: Decides a random probe's draws.

    Returns:
        The entries, without graph. With ``exact`` they are those of H; with ``ones`` the row sums of the four blocks;
        with ``rademacher`` they have those of H as their mean.
    """
    a, c, d = (torch.zeros_like(scale, requires_grad=False) for _ in range(3))
    for v in probe.vectors(scale, generator):
        (by_scale, over), (back, by_shift) = columns_of(v)
        a += probe.read(v, by_scale)
        c += (probe.read(v, over) + probe.read(v, back)) / 2
        d += probe.read(v, by_shift)
    return BlockEntries(a, c, d)


def columns_of_gradients(gradients: Sequence[Tensor], pair: Sequence[Tensor]) -> ColumnsOf:
    """Both products, by differentiating two gradients once more.

    Args:
        gradients: ∂L/∂γ and ∂L/∂β with their graph, as :func:`sgdph_fx.curvature.differentiable_gradient` leaves them.
        pair: The leaves γ and β.

    Raises:
        NoCurvatureError: at once or in a call, if an operation on the way has no second derivative.
    """
    products = [[block_product(gradient, leaf) for leaf in pair] for gradient in gradients]

    def columns_of(v: Tensor) -> Columns:
        (by_scale, over), (back, by_shift) = ([product(v) for product in row] for row in products)
        return (by_scale, over), (back, by_shift)

    return columns_of


def columns_by_double_backward(loss: Tensor, pair: Sequence[Tensor]) -> ColumnsOf:
    """Both products by torch's own double backward.

    Args:
        loss: One number with its graph, which is kept. It depends on both parameters.
        pair: The leaves γ and β.

    Returns:
        The function, which may be called many times.

    Raises:
        NoCurvatureError: if an operation on the way has no second derivative, or lies in a reentrant checkpoint. No
            ``.grad`` has been written.
    """
    if reentrant_checkpoints(loss):
        raise NoCurvatureError(
            "The 2×2 blocks of scale and shift take products by two parameters at once, which do not pass reentrant "
            "checkpoints. Call `torch.utils.checkpoint.checkpoint(..., use_reentrant=False)`, or use "
            'blocks="diagonal".'
        )
    gradients = [differentiable_gradient(loss, leaf) for leaf in pair]
    present = [gradient for gradient in gradients if gradient is not None]
    assert len(present) == len(pair), "the loss depends on both"
    return columns_of_gradients(present, pair)
