"""Which weights are heads, by hand from each model's forward: with one output, averaged, and in front of a loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgdph_fx import analyze, param_groups


class TwoLayers(nn.Module):
    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.body, self.head, self.other = nn.Linear(4, 4), nn.Linear(4, outputs), nn.Linear(4, outputs)


class Regression(TwoLayers):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).tanh()).squeeze(-1)


class ByFunction(TwoLayers):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.body(x).tanh(), self.head.weight)


class Averaged(TwoLayers):
    """As a distilled vision transformer in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x).tanh()
        return (self.head(h) + self.other(h)) / 2


class Residual(TwoLayers):
    """No head: what comes out is a sum with the block's input."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x).tanh()
        return h + self.head(h)


class WithLosses(TwoLayers):
    """As a mixture of experts returns them: a loss, with another added, and the logits."""

    def __init__(self) -> None:
        super().__init__(3)

    def forward(self, x: Tensor) -> Any:
        h = self.body(x).tanh()
        logits = self.head(h)
        return F.cross_entropy(
            logits, torch.zeros(len(x), dtype=torch.long)
        ) + 0.1 * h.square().mean(), logits


HEADS = {
    Regression: {"head.weight"},
    ByFunction: {"head.weight"},
    Averaged: {"head.weight", "other.weight"},
    Residual: set(),
    WithLosses: {"head.weight"},
}


@pytest.mark.parametrize("kind", HEADS)
def test_heads_are_found(kind: type[TwoLayers]) -> None:
    entries = analyze(kind(), torch.randn(2, 4)).parameters
    assert {e.name for e in entries if e.kind == "head"} == HEADS[kind]
    assert {e.name for e in entries if e.place == "first"} == {"body.weight", "body.bias"}


def test_the_head_of_a_regression_is_adamws() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
    sets = param_groups(net, torch.randn(2, 4), scheme="muon")
    assert [g["param_names"] for g in sets["muon"]] == [["2.weight"]]


class Grouped(nn.Module):
    """Experts by indexing, as transformers has them, and biases of attention by their name."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.Module()
        self.experts.up = nn.Parameter(torch.randn(3, 4, 4))
        self.attention_biases = nn.Parameter(torch.zeros(2, 9))
        self.head = nn.Linear(4, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.stack([F.linear(x, self.experts.up[i]) for i in range(3)])
        return self.head(y.softmax(-1) * self.attention_biases[:, torch.arange(4)].mean(0))


def test_experts_and_tables_of_biases_are_told_by_their_names() -> None:
    kinds = {e.name: e.kind for e in analyze(Grouped(), torch.randn(2, 4)).parameters}
    assert kinds == {"attention_biases": "position", "experts.up": "experts", "head.weight": "head"}
