"""Measure the exact 2×2 blocks of (γᵢ, βᵢ): how much of what a diagonal misses do they hold?

Where γ and β of a norm feed ReLU, a convolution and another batch norm, the loss does not change when both are
scaled together. So the two are coupled: H·(γ, β) = −gradient. A diagonal ignores ∂²L/∂γᵢ∂βᵢ. Two probes on
the pair, (z, 0) and (0, z) with the same signs z, would find the 2×2 block of every channel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["AffineBlock", "affine_modules", "joint_hessian", "measure_block"]

# As a share of the diagonal's mean size. It keeps the compared steps finite where curvature vanishes.
DAMPING = 0.1


@dataclass(frozen=True, slots=True)
class AffineBlock:
    r"""What the 2×2 blocks of one norm hold of the joint block H of (γ, β), ``(2C, 2C)``.

    Args:
        name: The norm.
        coupling: Frobenius norm of the 2×2 blocks' off-diagonal entries, divided by that of the diagonal of H.
        missed_by_diagonal: Frobenius norm of everything off the diagonal of H, divided by that of the diagonal.
        missed_by_blocks: The same for everything outside the 2×2 blocks.
        probe_noise: Root mean square error of one pair of Rademacher probes in the off-diagonal entries of the
            2×2 blocks, divided by the norm of these entries. Above 1 the probes find mostly noise.
        step_ratio: How far a step by the 2×2 blocks lowers the quadratic model, divided by how far a step by the
            diagonal does. Each goes along (\|block\| + damping)⁻¹ gradient with the best step size. None where the
            model is not convex along both.
    """

    name: str
    coupling: float
    missed_by_diagonal: float
    missed_by_blocks: float
    probe_noise: float
    step_ratio: float | None


def affine_modules(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Parameter]]:
    """List every module with a scale and a shift for each channel: its name, γ and β."""
    for name, module in model.named_modules():
        scale, shift = getattr(module, "weight", None), getattr(module, "bias", None)
        if isinstance(scale, nn.Parameter) and isinstance(shift, nn.Parameter) and scale.dim() == 1:
            yield name, scale, shift


def joint_hessian(gradients: tuple[Tensor, Tensor], scale: Tensor, shift: Tensor) -> Tensor:
    """Compute ∂²L/∂(γ, β)² column by column, and make it symmetric, as it is without rounding.

    Args:
        gradients: ∂L/∂γ and ∂L/∂β with their graph.
        scale: γ, ``(C,)``.
        shift: β, ``(C,)``.

    Returns:
        ``(2C, 2C)`` float64, on the CPU.
    """
    columns = [
        torch.cat(torch.autograd.grad(gradient, (scale, shift), axis, retain_graph=True))
        for gradient in gradients
        for axis in torch.eye(len(scale), dtype=scale.dtype, device=scale.device)
    ]
    block = torch.stack(columns).double().cpu()
    return (block + block.T) / 2


def measure_block(name: str, block: Tensor, gradient: Tensor) -> AffineBlock:
    """Measure one norm.

    Args:
        name: The norm.
        block: H of (γ, β), ``(2C, 2C)``.
        gradient: The gradient by (γ, β), ``(2C,)``, in H's dtype.
    """
    count = len(block) // 2
    diagonal = block.diag()
    crossing = block[:count, count:].diag()
    size, off = diagonal.norm(), (block - diagonal.diag()).norm()
    inside = 2**0.5 * crossing.norm()
    # The signs are independent, so z∘(H(z, 0)) has the mean squared error Σ_{j≠i} H_βᵢγⱼ² in its cross entry i.
    noise = (block[count:, :count] - crossing.diag()).norm() / crossing.norm()
    return AffineBlock(
        name,
        float(inside / size),
        float(off / size),
        float((off**2 - inside**2).clamp(min=0).sqrt() / size),
        float(noise),
        _step_ratio(block, gradient),
    )


def _step_ratio(block: Tensor, gradient: Tensor) -> float | None:
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
    by_blocks = _decrease(block, gradient, steps[:, :, 0].T.reshape(-1))
    return None if by_diagonal is None or by_blocks is None else by_blocks / by_diagonal


def _decrease(block: Tensor, gradient: Tensor, direction: Tensor) -> float | None:
    """Maximize gᵀ(td) − (td)ᵀH(td) / 2 over t. None where the model is not convex along d."""
    curvature = float(direction @ block @ direction)
    return None if curvature <= 0 else float(gradient @ direction) ** 2 / (2 * curvature)
