"""Probes: how the diagonal of one parameter's Hessian block is read from its products with vectors.

Every estimate is linear in H, and its vectors depend on nothing but the generator, so the estimates of several
micro-batches under one draw add up as their losses do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

__all__ = ["PROBES", "Probe", "ProbeName", "Product", "generator_at"]

ProbeName: TypeAlias = Literal["ones", "rademacher", "rademacher-4", "exact"]

DRAWS = 4
"""Of the probe that takes a mean."""

Product: TypeAlias = Callable[[Tensor], Tensor]
"""v ↦ Hv for one parameter's block; v and Hv have the parameter's shape, dtype and device."""


@dataclass(frozen=True, slots=True)
class Probe:
    """The vectors to multiply H with, and what to read from the products.

    Args:
        vectors: (parameter, generator) ↦ the vectors v, of the parameter's shape, dtype and device.
        read: (v, Hv) ↦ its part of the estimate of diag(H); the estimate is the sum over all v.
        single: Whether there is one vector, for whatever parameter.
        averaged_signed: Whether the vectors are random signs. Then estimates must be averaged before their absolute
            value is taken: noise of random sign around the diagonal is not biased, its absolute value is.
    """

    vectors: Callable[[Tensor, torch.Generator], Iterator[Tensor]]
    read: Callable[[Tensor, Tensor], Tensor]
    single: bool = True
    averaged_signed: bool = False

    def estimate(self, product: Product, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """diag(H) as the probe sees it, of the parameter's shape, dtype and device, without graph."""
        found = torch.zeros_like(parameter, requires_grad=False)
        for v in self.vectors(parameter, generator):
            found += self.read(v, product(v))
        return found


def generator_at(seed: int, step: int) -> torch.Generator:
    """The source of the draws of one step, on the CPU: the same for every micro-batch, process and resumed run."""
    digest = hashlib.blake2b(f"{seed} {step}".encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def _ones(parameter: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    yield torch.ones_like(parameter, requires_grad=False)


def _signs(parameter: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    bits = torch.randint(0, 2, parameter.shape, generator=generator, dtype=torch.int8)
    yield bits.to(parameter.device, parameter.dtype, non_blocking=True).mul_(2).sub_(1)


def _four_signs(parameter: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    for _ in range(DRAWS):
        yield from _signs(parameter, generator)


def _axes(parameter: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    for place in range(parameter.numel()):
        axis = torch.zeros_like(parameter, requires_grad=False)
        axis.view(-1)[place] = 1
        yield axis


PROBES: Mapping[str, Probe] = {
    "ones": Probe(_ones, lambda v, column: column),
    "rademacher": Probe(_signs, torch.mul, averaged_signed=True),
    "rademacher-4": Probe(
        _four_signs, lambda v, column: v * column / DRAWS, single=False, averaged_signed=True
    ),
    "exact": Probe(_axes, torch.mul, single=False),
}
"""Every probe by its name.

``ones``: the paper's e_SO (3), the block's row sums, which are its diagonal where (2) holds, that is where the block
is diagonal. ``rademacher``: z∘(Hz) with independent signs z, exact where (2) holds and unbiased where it does not.
``rademacher-4``: the mean of four such draws, at the price of four products, with half the error.
``exact``: the diagonal, by one product for each number of the parameter.
"""
