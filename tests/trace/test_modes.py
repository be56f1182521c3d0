"""The mode in which a model is read is that in which it trains."""

from __future__ import annotations

from typing import Self

import pytest
import torch
from torch import Tensor, nn

from sgdph_fx import SGDPH, analyze, prepare, restore

X = torch.rand(2, 3, 6, 6)


class FreezesItsNorm(nn.Module):
    """As detectors do: the norms of a backbone stay in evaluation mode while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.switched = 0

    def train(self, mode: bool = True) -> Self:
        self.switched += 1
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(self.conv(x))
        return result


@pytest.mark.parametrize("inputs", [None, X], ids=["symbolic", "recorded"])
@pytest.mark.parametrize("inside", [False, True], ids=["itself", "inside"])
def test_a_new_model_is_read_as_its_own_train_makes_it(inputs: Tensor | None, inside: bool) -> None:
    backbone = FreezesItsNorm()
    model = nn.Sequential(backbone, nn.ReLU()) if inside else backbone
    before = [module.training for module in model.modules()]
    (row,) = analyze(model, inputs).convolutions
    assert row.verdict == "bare"
    assert "frozen" in row.reason
    assert [module.training for module in model.modules()] == before
    assert backbone.switched == 0  # as it was


def test_what_was_frozen_by_hand_stays_frozen_beside_it() -> None:
    by_hand = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    model = nn.Sequential(FreezesItsNorm(), by_hand)
    by_hand[1].eval()
    plan = analyze(model, X)
    assert {row.verdict for row in plan.convolutions} == {"bare"}


def network() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(16, 3)),
    )


@pytest.mark.parametrize("inputs", [None, X], ids=["symbolic", "recorded"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_an_exported_program_is_read_in_the_mode_that_it_keeps(inputs: Tensor | None, training: bool) -> None:
    plain = network().train(training)
    program = torch.export.export(plain, (X,)).module()
    prepared = prepare(program, inputs)
    verdicts = {row.name: row.verdict for row in prepared.report.plan.convolutions}
    # In evaluation mode the batch norm takes no statistics, and so normalizes nothing.
    assert verdicts == {"0": "normalized" if training else "bare", "3": "bare"}
    roles = {entry.name: entry.role for entry in prepared.report.plan.parameters}
    assert (roles["1.weight"], roles["1.bias"], roles["3.gain"]) == ("norm.weight", "norm.bias", "gain")
    assert torch.allclose(prepared.model(X), plain(X), atol=1e-5)
    optimizer = SGDPH(prepared.param_groups, lr=0.01)
    optimizer.backward(prepared.model(X).square().mean())
    optimizer.step()
    plain.load_state_dict(restore(prepared.model).state_dict())
    assert torch.allclose(prepared.model(X), plain(X), atol=1e-5)
