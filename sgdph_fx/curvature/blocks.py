"""One parameter's Hessian block, column by column: what its diagonal is, and what the probes make of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sgdph_fx.curvature.hvp import block_product, missing_derivatives_explained
from sgdph_fx.curvature.probes import PROBES, Product, generator_at

__all__ = ["Block", "chunk_for", "measure_block"]

# A vmapped double backward took 1.4 to 5 times as long as a loop on a CPU (convolutions, attention).
CHUNK_ELSEWHERE = 16


@dataclass(frozen=True, slots=True)
class Block:
    """What was measured of the block H = ∂²L/∂p² of one parameter of n numbers, on k of its channels.

    All tensors are float64, on the CPU, of shape ``(k,)`` unless said otherwise.

    Args:
        channels: Which of the n numbers were measured, int64, rising.
        gradient: ∂L/∂p at them.
        diagonal: H_jj, the truth that a probe is to find.
        off: The Euclidean norm of column j without its diagonal entry.
        absolute: Σ_i \\|H_ij\\|, what row sum j would be if nothing cancelled.
        asymmetry: How far column j is from row j among the channels measured, off the diagonal: 0 for equal, 1 for
            unrelated or opposite. A Hessian is symmetric, rounding noise is not. NaN where there is nothing
            to compare.
        peak: The largest \\|H_ij\\| of column j.
        ones: The estimate of the probe ``ones`` (3), row sum j.
        draws: Estimates of the probe ``rademacher``, one row for each draw, ``(draws, k)``.
    """

    channels: Tensor
    gradient: Tensor
    diagonal: Tensor
    off: Tensor
    absolute: Tensor
    asymmetry: Tensor
    peak: Tensor
    ones: Tensor
    draws: Tensor


def chunk_for(device: torch.device) -> int:
    """How many products are worth taking at once there: one on a CPU."""
    return 1 if device.type == "cpu" else CHUNK_ELSEWHERE


def block_products(gradient: Tensor, parameter: Tensor, chunk: int) -> Product:
    """V ↦ VH for several vectors at once, ``(m, *shape)`` to ``(m, *shape)``.

    Args:
        gradient: ∂L/∂p with its graph, as for :func:`block_product`.
        parameter: The leaf p.
        chunk: How many products share one pass, which takes as many times the memory of one.

    Raises:
        NoCurvatureError: as :func:`block_product`.
    """
    product = block_product(gradient, parameter)
    if chunk == 1 or not gradient.requires_grad:
        return lambda vectors: torch.stack([product(v) for v in vectors])

    def together(vectors: Tensor) -> Tensor:
        with missing_derivatives_explained():
            (found,) = torch.autograd.grad(
                gradient, parameter, vectors, retain_graph=True, allow_unused=True, is_grads_batched=True
            )
        return torch.zeros_like(vectors) if found is None else found

    return lambda vectors: torch.cat([together(part) for part in torch.split(vectors, chunk)])


def measure_block(
    gradient: Tensor,
    parameter: Tensor,
    channels: Tensor,
    *,
    draws: int,
    seed: int,
    chunk: int,
    done: Callable[[int], None],
) -> Block:
    """Measure the block of one parameter.

    Args:
        gradient: ∂L/∂p with its graph.
        parameter: The leaf p, of n numbers in whatever shape.
        channels: Which of them to measure, int64 ``(k,)``, rising. One product is taken for each.
        draws: How many Rademacher probes to draw, at least one.
        seed: Decides the draws.
        chunk: How many products share one pass.
        done: Told how many products have been taken since it was told last.

    Raises:
        NoCurvatureError: if an operation on the way has no second derivative.
    """
    products = block_products(gradient, parameter, chunk)
    parts, corners = [], []
    for some in torch.split(channels, chunk):
        columns = products(_axes(parameter, some)).flatten(1).cpu().double()
        parts.append(_reduced(columns, some))
        corners.append(columns[:, channels])
        done(len(some))
    ones, estimates = _probes(products, parameter, draws, seed)
    done(1 + draws)
    diagonal, off, absolute, peak = (torch.cat(part) for part in zip(*parts, strict=True))
    return Block(
        channels=channels,
        gradient=gradient.detach().flatten().cpu().double()[channels],
        diagonal=diagonal,
        off=off,
        absolute=absolute,
        asymmetry=_asymmetry(torch.cat(corners)),
        peak=peak,
        ones=ones[channels],
        draws=estimates[:, channels],
    )


def _axes(parameter: Tensor, channels: Tensor) -> Tensor:
    axes = parameter.new_zeros((len(channels), parameter.numel()), requires_grad=False)
    axes[torch.arange(len(channels)), channels.to(parameter.device)] = 1
    return axes.view(len(channels), *parameter.shape)


def _reduced(columns: Tensor, channels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows = torch.arange(len(channels))
    diagonal, size = columns[rows, channels], columns.abs()
    others = columns.index_put((rows, channels), columns.new_zeros(()))
    return diagonal, others.norm(dim=1), size.sum(1), size.amax(1)


def _asymmetry(corner: Tensor) -> Tensor:
    off = corner - corner.diag().diag()
    apart: Tensor = (off - off.T).norm(dim=1)
    return apart.div(off.norm(dim=0) + off.norm(dim=1))


def _probes(products: Product, parameter: Tensor, draws: int, seed: int) -> tuple[Tensor, Tensor]:
    """The real probes, by their own rules; all n numbers, flat."""
    names = ["ones", *["rademacher"] * draws]
    vectors = [v for k, name in enumerate(names) for v in _vectors(name, parameter, seed, k)]
    found = products(torch.stack(vectors))
    read = [PROBES[name].read(v, column) for name, v, column in zip(names, vectors, found, strict=True)]
    estimates = torch.stack(read).flatten(1).cpu().double()
    return estimates[0], estimates[1:]


def _vectors(name: str, parameter: Tensor, seed: int, draw: int) -> Iterator[Tensor]:
    return PROBES[name].vectors(parameter, generator_at(seed, draw))
