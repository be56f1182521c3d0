"""Probes: how the diagonal of one parameter's Hessian block is read from its products.

A probe gets the block H only as a function v ↦ Hv, draws the vectors it likes, and returns its estimate of
diag(H). What it returns is linear in H, so the estimates of several micro-batches add up as their losses do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = ["PROBES", "Probe", "Product", "ones"]

Product: TypeAlias = Callable[[Tensor], Tensor]
"""v ↦ Hv for one parameter's block; v and Hv have the parameter's shape, dtype and device."""

Probe: TypeAlias = Callable[[Product, Tensor], Tensor]
"""(product, parameter) ↦ estimate of diag(H), of the parameter's shape, dtype and device."""


def ones(product: Product, parameter: Tensor) -> Tensor:
    """The paper's probe e_SO (3): v is 1 all over the parameter and 0 everywhere else.

    Returns the block's row sums, which are its diagonal where (2) holds, that is where the block is diagonal.
    """
    return product(torch.ones_like(parameter, requires_grad=False))


PROBES: Mapping[str, Probe] = {"ones": ones}
"""Every probe by its name."""
