"""Products with the Hessian of the due parameter, or of a pair's two, and what a probe reads from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor

from sgdph_fx.curvature.autograd_graph import Order
from sgdph_fx.curvature.autograd_graph import leaves as leaves_of
from sgdph_fx.curvature.backward_checks import is_symmetric_block
from sgdph_fx.curvature.forward_over_reverse import backward_with_product, product_only
from sgdph_fx.curvature.forward_over_reverse.joint import backward_with_columns, columns_only
from sgdph_fx.curvature.hvp import block_product, product_by_double_backward
from sgdph_fx.curvature.norm_gradients import loses_bias
from sgdph_fx.curvature.pair_blocks import (
    BlockEntries,
    Columns,
    ColumnsOf,
    columns_by_double_backward,
    columns_of_gradients,
    estimate_blocks,
)
from sgdph_fx.curvature.probes import Probe
from sgdph_fx.curvature.reentrant import reentrant_checkpoints
from sgdph_fx.errors import NoCurvatureError
from sgdph_fx.optim.hessian.request import HessianRequest

__all__ = ["Found", "Passes", "of_gradients", "of_hessian"]

T = TypeVar("T")

Found: TypeAlias = "tuple[Tensor | None, ...]"
"""For each due parameter its diagonal, then for each pair what couples the two; None for what the loss does not use."""


@dataclass(frozen=True, slots=True)
class Passes:
    """The ways through the graph of a loss.

    Args:
        product: (loss, leaf, v) ↦ Hv, beside the backward pass that is wanted anyway.
        columns: (loss, pair, v) ↦ both products of a pair, likewise.
        backward: That pass by itself, for what is found without it.
    """

    product: Callable[[Tensor, Tensor, Tensor], Tensor | None]
    columns: Callable[[Tensor, Sequence[Tensor], Tensor], Columns]
    backward: Callable[[], None]

    @classmethod
    def beside(
        cls,
        loss: Tensor,
        retain_graph: bool,
        on_give_up: Callable[[str], None] | None,
        order: Order | None = None,
    ) -> Passes:
        """Those of a loss whose gradients are wanted."""

        def backward() -> None:
            loss.backward(retain_graph=retain_graph)  # type: ignore[no-untyped-call]

        return cls(
            partial(backward_with_product, retain_graph=retain_graph, on_give_up=on_give_up, order=order),
            partial(backward_with_columns, retain_graph=retain_graph, on_give_up=on_give_up),
            backward,
        )

    @classmethod
    def alone(cls, on_give_up: Callable[[str], None] | None) -> Passes:
        """Those of a loss whose Hessian alone is wanted."""
        return cls(
            partial(product_only, on_give_up=on_give_up),
            partial(columns_only, on_give_up=on_give_up),
            lambda: None,
        )


def of_hessian(loss: Tensor, leaves: Sequence[Tensor], due: HessianRequest, passes: Passes) -> Found:
    """Products beside a backward pass, or before it where the probe takes many."""
    places = _used(loss, leaves, due)
    if len(places) < 2:
        found: list[Tensor | None] = [None] * len(leaves)
        for place in places:
            found[place] = _one(loss, leaves[place], due, passes)
        if not places:
            passes.backward()
        return (*found, *(None for _ in due.pairs))
    pair = _in_order(leaves, due)
    if _probe(due).single:
        return _as_found(_blocks(lambda v: passes.columns(loss, pair, v), pair, due), due)
    found_blocks = _several(
        lambda: _blocks(columns_by_double_backward(loss, pair), pair, due),
        lambda: _blocks(lambda v: columns_only(loss, pair, v, retain_graph=True), pair, due),
        passes,
    )
    return _as_found(found_blocks, due)


def of_gradients(leaves: Sequence[Tensor], due: HessianRequest, unseen: Sequence[Tensor] = ()) -> Found:
    """The products by differentiating the due gradients, which carry a graph.

    Args:
        leaves: The parameters as the loss knows them.
        due: What is asked for.
        unseen: Those of the due parameters for which no such product has been taken before. Theirs are compared with
            what every Hessian is, as a loss that holds a gradient of a norm has products here that torch gets wrong.

    Raises:
        NoCurvatureError: if a product is not that of a symmetric matrix, or cannot be taken.
    """
    rows = list(zip(leaves, due.parameters, strict=True))
    present = {
        place: p.grad for place, (leaf, p) in enumerate(rows) if p.requires_grad and p.grad is not None
    }
    for place, gradient in present.items():
        if any(rows[place][1] is p for p in unseen):
            _require_hessian(gradient, leaves[place], due.names[place])
    if len(present) == 2:
        pair, gradients = _in_order(leaves, due), _in_order(list(present.values()), due)
        return _as_found(_blocks(columns_of_gradients(gradients, pair), pair, due), due)
    found = [
        _probe(due).estimate(block_product(present[place], leaf), leaf, due.generator)
        if place in present
        else None
        for place, leaf in enumerate(leaves)
    ]
    return (*found, *(None for _ in due.pairs))


def _require_hessian(gradient: Tensor, leaf: Tensor, name: str) -> None:
    if leaf.numel() > 1 and not is_symmetric_block(gradient, block_product(gradient, leaf)):
        raise NoCurvatureError(
            f"The derivative of the gradient of parameter {name!r} is not symmetric, so it is no Hessian. Torch gets "
            "it wrong without an error, most often for a loss that holds gradients of a layer norm. Call "
            "`optimizer.backward(loss)` in place of `loss.backward(create_graph=True)`: it has them right, or "
            "names what it cannot differentiate."
        )
    if loses_bias(gradient):
        raise NoCurvatureError(
            f"Torch takes the gradient of parameter {name!r} for a constant, without an error: it is the bias of a "
            "batch or layer norm that has no weight. Call `optimizer.backward(loss)` in place of "
            "`loss.backward(create_graph=True)`: it has it right."
        )


def _one(loss: Tensor, leaf: Tensor, due: HessianRequest, passes: Passes) -> Tensor | None:
    probe = _probe(due)
    if probe.single:
        v = next(probe.vectors(leaf, due.generator))
        column = passes.product(loss, leaf, v)
        return None if column is None else probe.read(v, column)

    def by_torch() -> Tensor | None:
        with product_by_double_backward(loss, leaf) as product:
            return None if product is None else probe.estimate(product, leaf, due.generator)

    return _several(
        by_torch, lambda: probe.estimate(lambda v: _swept(loss, leaf, v), leaf, due.generator), passes
    )


def _several(by_torch: Callable[[], T], by_sweeps: Callable[[], T], passes: Passes) -> T:
    """Several products, and then the backward pass: by torch's double backward, which makes one graph for all of them.

    A sweep knows operations that torch cannot differentiate twice, such as fused attention. What it does not know it
    leaves to torch, which says the same again.
    """
    try:
        found = by_torch()
    except NoCurvatureError:
        found = by_sweeps()
    passes.backward()
    return found


def _swept(loss: Tensor, leaf: Tensor, v: Tensor) -> Tensor:
    column = product_only(loss, leaf, v, retain_graph=True)
    return torch.zeros_like(v) if column is None else column


def _used(loss: Tensor, leaves: Sequence[Tensor], due: HessianRequest) -> list[int]:
    """The places of the leaves to take products by; of a pair those that the loss depends on."""
    trained = [place for place, leaf in enumerate(leaves) if leaf.requires_grad]
    if len(trained) < 2 or reentrant_checkpoints(loss):  # such a checkpoint may hide its parameters
        return trained
    reached = {id(leaf) for leaf in leaves_of(loss)}
    return [place for place in trained if id(leaves[place]) in reached]


def _in_order(values: Sequence[Tensor], due: HessianRequest) -> list[Tensor]:
    """Those of the due pair's scale and shift."""
    of = {id(p): value for p, value in zip(due.parameters, values, strict=True)}
    (pair,) = due.pairs
    return [of[id(p)] for p in pair.both]


def _blocks(columns_of: ColumnsOf, pair: Sequence[Tensor], due: HessianRequest) -> BlockEntries:
    return estimate_blocks(columns_of, _probe(due), pair[0], due.generator)


def _as_found(block: BlockEntries, due: HessianRequest) -> Found:
    (pair,) = due.pairs
    diagonals = (block.a if p is pair.scale else block.d for p in due.parameters)
    return (*diagonals, block.c)


def _probe(due: HessianRequest) -> Probe:
    assert due.probe is not None, "a request without a probe takes no product"
    return due.probe
