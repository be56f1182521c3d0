"""A step that writes into the weight of a decoupled layer: what the host looks at there, a graph cannot hold."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sgdph_fx import SGDPH, CapturedStep, Config, prepare
from sgdph_fx.errors import CaptureError


class Bounded(nn.Conv2d):
    """Bounds the norms of its filters in each forward pass, as networks for EEG do."""

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data = torch.renorm(self.weight.data, 2, 0, 0.5)
        return super().forward(x)


def test_a_write_into_a_decoupled_weight_is_told_as_such_and_a_kept_layer_goes_on() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(Bounded(2, 4, 3), nn.ELU(), nn.Flatten(), nn.Linear(16, 3))
    x, y = torch.randn(5, 2, 4, 4), torch.randint(3, (5,))
    model, groups, _ = prepare(net, x)
    step = CapturedStep(model, cross_entropy, SGDPH(groups, 0.05))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(
        CaptureError, match=r"the weight of a decoupled layer at .*test_captured_writes\.py:\d+"
    ):
        step(x, y)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    kept, groups, _ = prepare(net, x, config=Config(rules={"0": "keep"}))
    assert torch.isfinite(CapturedStep(kept, cross_entropy, SGDPH(groups, 0.05))(x, y))
