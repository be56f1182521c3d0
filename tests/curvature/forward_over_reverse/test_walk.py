"""The walk along a graph: every operation after what it reads, tangents freed as soon as they have served."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import torch
from torch import Tensor

from experiments.networks import build
from sgdph_fx.curvature.autograd_graph import leaves, leaves_among, nodes, producers_first
from sgdph_fx.curvature.forward_over_reverse import backward_with_product, coverage
from tests.curvature.forward_over_reverse.living_tensors import living

pytestmark = pytest.mark.usefixtures("one_thread")

LENGTH = 4099


def diamonds(p: Tensor) -> Tensor:
    """Values that are used twice, near and far."""
    a = p.exp()
    b = a * a.sin()
    return (a + b * b.cos() + p * a).sum()


@pytest.mark.parametrize("name", ["diamonds", "resnet18", "vit", "leaf"])
def test_every_operation_comes_once_and_after_what_it_reads(name: str) -> None:
    p = torch.rand(4, requires_grad=True)
    losses = {
        "diamonds": lambda: diamonds(p),
        "leaf": lambda: torch.ones((), requires_grad=True),
    }
    make = losses.get(name) or (lambda: build(name, width=4)(torch.randn(2, 3, 32, 32)).sum())
    loss = make()
    order = producers_first(loss)
    place = {node: number for number, node in enumerate(order)}
    assert set(order) == set(nodes(loss))
    for node, edges in order.items():
        assert edges == node.next_functions
        assert all(place[child] < place[node] for child, _ in edges if child is not None)
    if name != "leaf":
        assert Counter(map(id, leaves_among(order))) == Counter(map(id, leaves(loss)))


def test_a_tangent_is_freed_once_its_operation_is_done() -> None:
    """Eight operations keep a tangent each. When the gradient reaches p, one is left at most."""
    p = torch.linspace(-1, 1, LENGTH, requires_grad=True)
    seen: dict[int, int] = {}
    x = p
    for number in range(8):
        x = x.tanh()
        if number in (0, 7):
            x.register_hook(lambda g, number=number: seen.update({number: living((LENGTH,))}))
    loss = x.sum()
    del x
    before = living((LENGTH,))
    backward_with_product(loss, p, torch.ones_like(p))
    assert seen[7] - before >= 8, "all tangents are there as the backward pass begins"
    assert seen[7] - seen[0] >= 6


def test_a_sparse_value_ends_the_sweep() -> None:
    p = torch.rand(3, requires_grad=True)
    eye = torch.eye(3).to_sparse()
    loss = torch.sparse.mm(eye, p.exp()[:, None]).sum()
    assert re.search("layout torch.sparse_coo|SparseTensorImpl", str(coverage(loss, p).gives_up))


def test_the_hosts_contexts_are_left_as_they_were() -> None:
    p = torch.rand(3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = (p[None] @ p[:, None]).exp().sum()
        backward_with_product(loss, p, torch.ones(3))
        assert torch.is_autocast_enabled("cpu")
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")
