"""Functions of symmetric 2×2 matrices, one for each channel, in closed form.

Let M = [[a, c], [c, d]] have the eigenvalues λ₁ ≥ λ₂, and let (x, y) be the eigenvector of λ₁, of length 1. Then

    f(M) = f(λ₁) [[x², xy], [xy, y²]] + f(λ₂) [[y², -xy], [-xy, x²]] .

With the middle m = (a + d) / 2, the half difference δ = (a - d) / 2 and the radius r = √(δ² + c²), the eigenvalues are
m ± r, x² = (r + δ) / 2r, y² = (r - δ) / 2r and xy = c / 2r. Each is computed without a difference of nearly equal
numbers: the eigenvalue nearer to zero is det M over the other one, and (r + δ) (r - δ) = c².
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sgdph_fx.curvature.pair_blocks import BlockEntries

__all__ = ["function_of"]


def function_of(block: BlockEntries, f: Callable[[Tensor], Tensor]) -> BlockEntries:
    """Compute f(M) of each channel's matrix M.

    Args:
        block: a, c and d of M, each of one shape, dtype and device.
        f: The function of the eigenvalues.

    Returns:
        The entries of f(M), in float32 where M is in halves.

    Example:
        √[[5, 4], [4, 5]] = [[2, 1], [1, 2]], because 9 and 1 are the eigenvalues:

        >>> a, c = torch.tensor([5.0]), torch.tensor([4.0])
        >>> [entry.item() for entry in function_of(BlockEntries(a, c, a), torch.sqrt)]
        [2.0, 1.0, 2.0]
    """
    dtype = torch.promote_types(block.a.dtype, torch.float32)
    a, c, d = (entry.to(dtype) for entry in block)
    middle, half = a / 2 + d / 2, a / 2 - d / 2
    radius = torch.hypot(half, c)
    is_up = middle >= 0
    large = torch.where(is_up, middle + radius, middle - radius)
    small = _over(a, large) * d - _over(c, large) * c
    at_top, at_bottom = f(torch.where(is_up, large, small)), f(torch.where(is_up, small, large))
    above = radius + half.abs()
    near, far = _over(above, 2 * radius), _over(_over(c, above) * c, 2 * radius)
    x2, y2 = torch.where(half >= 0, near, far), torch.where(half >= 0, far, near)
    x2 = torch.where(radius == 0, torch.ones_like(x2), x2)
    return BlockEntries(
        at_top * x2 + at_bottom * y2,
        (at_top - at_bottom) * _over(c, 2 * radius),
        at_top * y2 + at_bottom * x2,
    )


def _over(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient; 0 where both are 0."""
    return torch.where(denominator == 0, torch.zeros_like(numerator), numerator / denominator)
