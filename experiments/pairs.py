"""The exact 2×2 blocks of (γᵢ, βᵢ): how much of what a diagonal misses do they hold?

Where γ and β of a norm feed ReLU, a convolution and another batch norm, the loss does not change when both are
scaled together, so the two are coupled: H·(γ, β) = −gradient. A diagonal ignores ∂²L/∂γᵢ∂βᵢ. Two probes on
the pair, (z, 0) and (0, z) with the same signs z, would find the 2×2 block of every channel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Pair", "affine_pairs", "joint_block", "pair_of"]

# Of the mean size of the diagonal: keeps the steps compared from running off where curvature vanishes.
DAMPING = 0.1


@dataclass(frozen=True, slots=True)
class Pair:
    """What the 2×2 blocks of one norm hold, of the joint block H of (γ, β), ``(2C, 2C)``.

    Args:
        name: The norm.
        coupling: Frobenius norm of the 2×2 blocks' off-diagonal entries over that of the diagonal of H.
        missed: Frobenius norm of all that lies off the diagonal of H, over that of the diagonal.
        left: The same of all that lies outside the 2×2 blocks.
        noise: The root mean square error, in the off-diagonal entries of the 2×2 blocks, that one pair of
            Rademacher probes would have, over the norm of these entries: above 1 the probes find noise.
        gain: How far one step by the 2×2 blocks lowers the quadratic model, over one by the diagonal, each along
            (\\|block\\| + damping)⁻¹ gradient with the best step size; None where the model is not convex along both.
    """

    name: str
    coupling: float
    missed: float
    left: float
    noise: float
    gain: float | None


def affine_pairs(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Parameter]]:
    """Every module with a scale and a shift for each channel: its name, γ and β."""
    for name, module in model.named_modules():
        scale, shift = getattr(module, "weight", None), getattr(module, "bias", None)
        if isinstance(scale, nn.Parameter) and isinstance(shift, nn.Parameter) and scale.dim() == 1:
            yield name, scale, shift


def joint_block(gradients: tuple[Tensor, Tensor], scale: Tensor, shift: Tensor) -> Tensor:
    """∂²L/∂(γ, β)², ``(2C, 2C)`` float64, column by column, and made as symmetric as it is without rounding.

    Args:
        gradients: ∂L/∂γ and ∂L/∂β with their graph.
        scale: γ, ``(C,)``.
        shift: β, ``(C,)``.
    """
    columns = [
        torch.cat(torch.autograd.grad(gradient, (scale, shift), axis, retain_graph=True))
        for gradient in gradients
        for axis in torch.eye(len(scale), dtype=scale.dtype, device=scale.device)
    ]
    block = torch.stack(columns).double().cpu()
    return (block + block.T) / 2


def pair_of(name: str, block: Tensor, gradient: Tensor) -> Pair:
    """The numbers of one norm.

    Args:
        name: The norm.
        block: H of (γ, β), ``(2C, 2C)``.
        gradient: Of (γ, β), ``(2C,)``, in H's dtype.
    """
    count = len(block) // 2
    diagonal = block.diag()
    crossing = block[:count, count:].diag()
    size, off = diagonal.norm(), (block - diagonal.diag()).norm()
    inside = 2**0.5 * crossing.norm()
    # z∘(H(z, 0)) has the error Σ_{j≠i} H_βᵢγⱼ² in its cross entry i, by independence of the signs.
    noise = (block[count:, :count] - crossing.diag()).norm() / crossing.norm()
    return Pair(
        name,
        float(inside / size),
        float(off / size),
        float((off**2 - inside**2).clamp(min=0).sqrt() / size),
        float(noise),
        _gain(block, gradient),
    )


def _gain(block: Tensor, gradient: Tensor) -> float | None:
    count = len(block) // 2
    diagonal = block.diag()
    damping = DAMPING * diagonal.abs().mean()
    by_diagonal = _decrease(block, gradient, gradient / (diagonal.abs() + damping))
    rows = torch.arange(count)
    twos = torch.stack(
        [block[r][:, c].diag() for r in (rows, rows + count) for c in (rows, rows + count)], dim=1
    ).view(count, 2, 2)
    values, vectors = torch.linalg.eigh(twos)
    sides = gradient.view(2, count).T[:, :, None]
    steps = vectors @ ((vectors.mT @ sides) / (values.abs() + damping)[:, :, None])
    by_pairs = _decrease(block, gradient, steps[:, :, 0].T.reshape(-1))
    return None if by_diagonal is None or by_pairs is None else by_pairs / by_diagonal


def _decrease(block: Tensor, gradient: Tensor, direction: Tensor) -> float | None:
    """max over t of gᵀ(td) − (td)ᵀH(td) / 2."""
    bend = float(direction @ block @ direction)
    return None if bend <= 0 else float(gradient @ direction) ** 2 / (2 * bend)
