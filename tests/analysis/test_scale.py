"""The analysis takes time in proportion to the model: four times the layers, about four times the time."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sgdph_fx import Plan, analyze, param_groups
from tests.growth import grows_in_proportion


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.norm(self.conv(x)))


class Fan(nn.Module):
    """One convolution that as many norms read."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.norms = nn.Conv2d(2, 2, 1), nn.ModuleList(nn.BatchNorm2d(2) for _ in range(width))

    def forward(self, x: Tensor) -> list[Tensor]:
        y = self.conv(x)
        return [norm(y) for norm in self.norms]


MODELS: dict[str, Callable[[int], nn.Module]] = {
    "a chain": lambda n: nn.Sequential(
        *(layer for _ in range(n) for layer in (nn.Conv2d(2, 2, 1), nn.ReLU()))
    ),
    "residual blocks": lambda n: nn.Sequential(*(Block() for _ in range(n))),
    "one fan": Fan,
}
X = torch.randn(3, 2, 2, 2)


def seconds(model: nn.Module) -> float:
    """The processor time of reading a model, of its groups, and of its plan there and back."""
    start = time.process_time()
    plan = analyze(model, X)
    param_groups(model, X, scheme="layer-decay")
    Plan.from_json(plan.to_json())
    return time.process_time() - start


@pytest.mark.parametrize("name", MODELS)
def test_time_grows_in_proportion(name: str) -> None:
    seconds(MODELS[name](50))
    assert grows_in_proportion(lambda n: seconds(MODELS[name](n)), 300, 1200)
