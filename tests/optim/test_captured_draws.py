"""Random numbers that torch draws for the host: a graph would repeat what followed from them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sgdph_fx.errors import CaptureError
from sgdph_fx.optim.capture.watched_reads import ReadsRefused

OWN = torch.Generator()
DRAWS: dict[str, Any] = {
    "torch's own generator": lambda x: x if torch.rand(()).item() < 2 else -x,
    "one of a module": lambda x: x * torch.randint(1, 3, (1,), generator=OWN).item(),
    "an order": lambda x: x[:, torch.randperm(x.shape[1]).tolist()],
    "noise": lambda x: x + torch.zeros(x.shape).normal_(),
}


@pytest.mark.parametrize("name", DRAWS)
def test_on_a_gpu_torch_may_not_draw_on_the_cpu(name: str) -> None:
    with (
        ReadsRefused([], torch.device("cuda")),
        pytest.raises(
            CaptureError, match=r"draws random numbers on the CPU, by .* at .*test_captured_draws\.py"
        ),
    ):
        DRAWS[name](torch.ones(2, 3))
    with ReadsRefused([], torch.device("cpu")):  # where no graph is recorded
        DRAWS[name](torch.ones(2, 3))


def test_draws_on_the_device_are_its_own() -> None:
    with ReadsRefused([], torch.device("cuda")):
        torch.rand(3, device="meta")
        nn.functional.dropout(torch.ones(3, device="meta"))
