"""The experiment behind the page on curvature, from end to end on small files made here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from torch import nn

from experiments import curvature
from experiments.datasets.load import load
from experiments.hessian.short_training import SETTINGS, WEIGHT_DECAY, TrainedNetwork
from tests.experiments.dataset_files import smallest_training, write_cifar10_binary


def test_it_trains_audits_and_writes(tmp_path: Path) -> None:
    arguments = ["--batch", "8", "--pairs"]
    result = CliRunner().invoke(curvature.main, [*smallest_training(tmp_path), *arguments])
    assert result.exit_code == 0, result.output
    folder = tmp_path / "out" / "resnet18"
    # 20 batch norms with scale and shift, and the classifier's bias.
    assert len(json.loads((folder / "audit.json").read_text())["rows"]) == 41
    blocks = json.loads((folder / "pairs.json").read_text())
    assert len(blocks) == 20
    for block in blocks:
        parts = block["coupling"] ** 2 + block["missed_by_blocks"] ** 2
        assert block["missed_by_diagonal"] ** 2 == pytest.approx(parts, rel=1e-6)
    assert (folder / "audit.png").read_bytes().startswith(b"\x89PNG")
    assert result.stderr == ""


def test_training_takes_a_step_of_sgd(tmp_path: Path) -> None:
    """The gradient of the classifier's bias has entries that sum to zero."""
    write_cifar10_binary(tmp_path, 8)
    images = load("cifar10", tmp_path).train
    before, after = (TrainedNetwork.after(steps, "vgg19", 1, images).prepared.model for steps in (0, 1))
    assert isinstance(before, nn.Module)
    bias = "classifier.bias"
    moved = after.get_parameter(bias) - before.get_parameter(bias)
    # ∂L/∂b = mean(softmax − one-hot). Its entries sum to zero; those of the decay do not.
    decay = SETTINGS["vgg19"].lr * WEIGHT_DECAY * before.get_parameter(bias)
    assert (moved + decay).sum().item() == pytest.approx(0, abs=1e-7)
    assert moved.abs().max() > 1e-4


def test_missing_data_is_one_message(tmp_path: Path) -> None:
    result = CliRunner().invoke(curvature.main, ["--network", "vit", "--data", str(tmp_path)])
    assert result.exit_code == 1
    assert "cs.toronto.edu/~kriz" in result.output
