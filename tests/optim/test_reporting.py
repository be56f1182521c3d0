"""What an optimizer says of itself, in print and for logs."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

from sgdph_fx import prepare
from sgdph_fx.optim import SGDPH


def named() -> tuple[nn.Parameter, nn.Parameter, nn.Parameter, SGDPH]:
    p, q, last = (nn.Parameter(torch.tensor([1.0, 2.0])) for _ in range(3))
    groups = [{"params": [("p", p), ("q", q), ("last", last)], "order": 2}]
    return p, q, last, SGDPH(groups, 0.01, hessian_interval=2)


def train(optimizer: SGDPH, steps: int) -> list[str | None]:
    due = []
    for _ in range(steps):
        due.append(optimizer.due_name)
        optimizer.zero_grad()
        optimizer.backward(sum((p**2).sum() for p in optimizer.param_groups[0]["params"]))  # type: ignore[arg-type]
        optimizer.step()
    return due


def test_who_is_due_has_a_name() -> None:
    _, _, _, optimizer = named()
    assert train(optimizer, 7) == ["p", None, "q", None, None, None, "p"]
    unnamed = SGDPH([{"params": [nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))], "order": 2}], 0.1)
    assert unnamed.due_name == "param_groups[0]['params'][0]"


def test_statistics_are_plain_numbers_and_names() -> None:
    p, _, _, optimizer = named()
    assert optimizer.statistics() == {
        "step": 0,
        "cycle": 0,
        "cycle_length": 6,
        "due": "p",
        "steps_skipped": 0,
        "refreshes_skipped": 0,
        "curvature_missed": 0,
        "products_given_up": 0,
    }
    train(optimizer, 6)
    found = optimizer.statistics()
    assert (found["step"], found["cycle"], found["due"]) == (6, 1, "p")
    # ∂²p² = 2, averaged once from zero with weight 0.1.
    assert found["hessian_average/p"] == pytest.approx(0.2)
    assert set(found) >= {"hessian_average/q"}
    assert json.loads(json.dumps(found)) == found
    train(optimizer, 1)
    found = optimizer.statistics()
    assert found["cycle"] == 2
    assert found["hessian_average/p"] == pytest.approx(0.9 * 0.2 + 0.1 * 2)
    assert optimizer.state[p]["hessian_average"].mean().item() == pytest.approx(found["hessian_average/p"])


def test_parameters_without_numbers_have_no_mean() -> None:
    p, empty, last = nn.Parameter(torch.ones(2)), nn.Parameter(torch.empty(0)), nn.Parameter(torch.ones(1))
    optimizer = SGDPH([{"params": [p, empty, last], "order": 2}], 0.01)
    train(optimizer, 2)
    found = optimizer.statistics()
    assert [key for key in found if "average" in key] == ["hessian_average/param_groups[0]['params'][0]"]
    assert json.loads(json.dumps(found)) == found


def test_without_second_order_parameters_there_is_no_cycle() -> None:
    optimizer = SGDPH([nn.Parameter(torch.ones(2, 2))], 0.1)
    train(optimizer, 2)
    assert optimizer.statistics()["cycle_length"] == 0
    assert optimizer.statistics()["cycle"] == 0


def test_printed_it_takes_a_line_for_each_group() -> None:
    blocks = [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()) for _ in range(40)]
    groups = prepare(nn.Sequential(*blocks, nn.Conv2d(4, 4, 1))).param_groups
    optimizer = SGDPH(groups, 0.01, weight_decay=5e-3)
    text = repr(optimizer)
    assert len(text.splitlines()) == len(groups) + 3
    assert len(text) < 100 * len(groups) + 200
    assert "second-order norm.weight: 40 parameters, lr 0.01, weight_decay 0.005" in text
    assert "step 0, a Hessian cycle of 122 steps; due: 0.0.bias" in text
    assert sum(len(g["params"]) for g in groups if g["order"] == 2) == 122
    assert repr(SGDPH([{"params": []}], torch.tensor(0.5))).splitlines() == [
        "SGDPH(",
        "  (0) order 1: 0 parameters, lr 0.5, weight_decay 0",
        "  step 0, a Hessian cycle of 0 steps",
        ")",
    ]


@pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True:UserWarning")
@pytest.mark.parametrize("own_graph", [False, True])
def test_gradients_scaled_by_the_optimizer_take_their_hessian_along(
    small: Any, make_batches: Any, make_groups: Any, own_graph: bool
) -> None:
    """A sum over samples, divided at the end, is the mean."""
    nets, data = [small("group"), small("group")], make_batches(9)
    mean, total = (SGDPH(make_groups(net), 0.05) for net in nets)
    for x, y in data:
        mean.zero_grad()
        mean.backward(nets[0].loss((x, y)))
        mean.step()
        total.zero_grad()
        for i in (0, 2):
            rows = slice(i, i + 2 + i)
            loss = nn.functional.cross_entropy(nets[1](x[rows]), y[rows], reduction="sum")
            loss.backward(create_graph=True) if own_graph else total.backward(loss)
        total.scale_gradients(1 / 6)
        total.step()
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-11, atol=1e-12)


def test_names_that_a_terminal_obeys_are_printed_escaped() -> None:
    model = nn.Module()
    model.register_parameter("\x1b[31m\u202e", nn.Parameter(torch.ones(2)))
    optimizer = SGDPH(
        [{"params": list(model.named_parameters()), "order": 2, "name": "gain\x07"}], 0.1, variant="paper"
    )
    assert optimizer.due_name == "\x1b[31m\u202e"
    assert all(c.isprintable() or c == "\n" for c in repr(optimizer))
    assert r"\x1b[31m\u202e" in repr(optimizer)
    assert r"gain\x07" in repr(optimizer)
