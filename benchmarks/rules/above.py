"""The operations between a model's second-order parameters and a loss."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from benchmarks.coverage.sample import Sample, leaves_of
from sgdph_fx import prepare
from sgdph_fx.curvature.autograd_graph import producers_first

__all__ = ["loss_of", "operations_above", "second_order"]


def second_order(sample: Sample) -> tuple[nn.Module, list[Tensor]]:
    """Prepare the sample's model; return it, in training mode, and its second-order parameters."""
    prepared = prepare(sample.model.train(), sample)
    groups = [group for group in prepared.param_groups if group["order"] == 2]
    return prepared.model.train(), [p for group in groups for p in group["params"]]


def loss_of(model: nn.Module, sample: Sample) -> Tensor:
    """A loss that bends in everything that the model returns: the sum of the mean squares of its outputs."""
    outputs = [t for t in leaves_of(sample.run(model)) if t.requires_grad and t.numel()]
    losses = [_mean_square(t) for t in outputs]
    if not losses:
        raise ValueError("the model returns nothing that has a gradient")
    return torch.stack(losses).sum()


def _mean_square(t: Tensor) -> Tensor:
    return (torch.view_as_real(t) if t.is_complex() else t).float().square().mean()


def operations_above(loss: Tensor, parameters: Iterable[Tensor]) -> dict[Node, tuple[bool, ...]]:
    """Find every operation that depends on one of the parameters, producers before consumers.

    Returns:
        For each operation, which of its inputs depend on them.
    """
    sources = {id(p) for p in parameters}
    found: dict[Node, tuple[bool, ...]] = {}
    for node in producers_first(loss):
        active = tuple(
            child is not None and (child in found or _leaf(child) in sources)
            for child, _ in node.next_functions
        )
        if any(active):
            found[node] = active
    return found


def _leaf(node: Node) -> int | None:
    return id(node.variable) if type(node).__name__ == "AccumulateGrad" else None  # type: ignore[attr-defined]
