"""Small networks, batches, and the groups that a prepared model would have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sgdph_fx.optim import SGDPH
from sgdph_fx.optim.capture import captured_step
from tests.optim.recording import FakeRecorder


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """For every test here."""


class Small(nn.Module):
    """Convolution, norm, convolution, norm, linear: 7 channel-wise parameters among 10, in float64."""

    def __init__(self, norm: str = "batch", seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv1 = nn.Conv2d(2, 4, 3)
        self.norm1 = self._norm(norm, 4)
        self.conv2 = nn.Conv2d(4, 4, 2)
        self.norm2 = self._norm(norm, 4)
        self.linear = nn.Linear(4, 3)
        self.double()
        # At its fresh values, 0 and 1, a norm would hide mistakes.
        for parameter in self.parameters():
            nn.init.normal_(parameter, mean=0.5 if parameter.dim() == 1 else 0.0, std=0.4)

    @staticmethod
    def _norm(norm: str, channels: int) -> nn.Module:
        if norm == "batch":
            return nn.BatchNorm2d(channels, track_running_stats=False)
        return nn.GroupNorm(2, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.nn.functional.softplus(self.norm1(self.conv1(x)))
        x = torch.tanh(self.norm2(self.conv2(x)))
        out: Tensor = self.linear(x.mean((2, 3)))
        return out

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])


def batches(count: int, size: int = 6) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(size, 2, 5, 5, dtype=torch.float64, generator=generator),
            torch.randint(3, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def groups(net: nn.Module, *, reverse: bool = False, **extra: Any) -> list[dict[str, Any]]:
    """Two groups, the second-order one first, each with registration places and names."""
    made = []
    for order in (2, 1):
        rows = [
            (i, named)
            for i, named in enumerate(net.named_parameters())
            if (named[1].dim() == 1) == (order == 2)
        ]
        rows = rows[::-1] if reverse else rows
        made.append({"params": [n for _, n in rows], "index": [i for i, _ in rows], "order": order, **extra})
    return made


@pytest.fixture
def small() -> type[Small]:
    return Small


@pytest.fixture
def make_batches() -> Any:
    return batches


@pytest.fixture
def make_groups() -> Any:
    return groups


@pytest.fixture
def make_optimizer() -> type[SGDPH]:
    return SGDPH


@pytest.fixture
def fake_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tape in the place of CUDA graphs."""
    monkeypatch.setattr(captured_step, "Recorder", FakeRecorder)
