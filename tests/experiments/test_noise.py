"""The noise of the product on part of a batch: arithmetic by hand, products against torch's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch.nn.functional import cross_entropy

from experiments import noise
from experiments.noise import measure, relative_noise
from sgdph_fx import prepare
from tests.experiments.dataset_files import smallest_training


def test_a_batch_is_compared_with_the_mean_of_the_others() -> None:
    whole = torch.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 0.0]])
    # The others' means are 4, 3 and 2, the distances 3, 0 and 3; the mean of all is 3.
    assert relative_noise(whole, whole) == pytest.approx((18 / 3) ** 0.5 / 3)
    # One point is moved up by 4, so its distance is 5 in place of 3.
    part = whole + torch.tensor([[0.0, 4.0], [0.0, 0.0], [0.0, 0.0]])
    assert relative_noise(part, whole) == pytest.approx((34 / 3) ** 0.5 / 3)


def test_the_products_are_torchs_row_sums() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2)).double()
    prepared = prepare(net)
    batches = [(torch.randn(8, 3).double(), torch.randint(2, (8,))) for _ in range(3)]
    gamma = prepared.model.get_parameter("1.weight")

    def row_sums(inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        def loss(weight: torch.Tensor) -> torch.Tensor:
            logits = torch.func.functional_call(prepared.model, {"1.weight": weight}, (inputs,))
            return cross_entropy(logits, labels)

        return torch.func.hessian(loss)(gamma.detach()).sum(1)

    whole = torch.stack([row_sums(*batch) for batch in batches])
    halves = torch.stack([row_sums(x[:4], y[:4]) for x, y in batches])
    found = {(n.parameter, n.share): n.error for n in measure(prepared, batches, 100)}
    assert found["1.weight", 1.0] == pytest.approx(relative_noise(whole, whole))
    assert found["1.weight", 0.5] == pytest.approx(relative_noise(halves, whole))


def test_the_command_trains_measures_and_writes(tmp_path: Path) -> None:
    small = ["--batch", "16", "--batches", "2", "--parameters", "3"]
    result = CliRunner().invoke(noise.main, [*smallest_training(tmp_path), *small])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "resnet18.json").read_text())
    assert [row["share"] for row in found] == [1, 0.5, 0.25, 0.125] * 3
    assert all(row["error"] > 0 for row in found)
    assert result.output.count("\n| 0.") == 3
