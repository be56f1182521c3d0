"""Interrupted trainings, against the same ones without interruption: every number to the bit."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from experiments.__main__ import main
from experiments.running.recipe_files import SMOKE
from experiments.training.checkpoints import Checkpoint
from experiments.training.config import RunConfig
from experiments.training.loop import train
from experiments.training.methods import METHODS
from experiments.training.metrics import EpochMetrics
from tests.experiments.dataset_files import write_cifar10_binary
from tests.experiments.test_training import tiny_task

ROOT = Path(__file__).parents[2]
CASES = {method: RunConfig("resnet18", 4, method, 0.01, 1e-3, epochs=3, batch_size=10) for method in METHODS}
CASES["vgg11"] = RunConfig("vgg11", 8, "sgd-ph", 0.05, 1e-3, 3, 10, seed=2, options={"probe": "rademacher"})
CASES["channels last"] = RunConfig("vgg11-bn", 8, "sgd-ph", 0.05, 1e-3, 3, 10, channels_last=True)


def _numbers(epoch: EpochMetrics) -> tuple[float, ...]:
    return astuple(epoch)[:5]


def _killed_at(step: int) -> Callable[[], None]:
    left = [step]

    def on_step() -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    return on_step


@pytest.mark.parametrize("name", CASES)
def test_a_training_resumes_with_the_same_bits(name: str, tmp_path: Path) -> None:
    recipe, task = CASES[name], tiny_task()
    whole = list(train(recipe, task))
    checkpoint = Checkpoint(tmp_path / "state.pt")
    parts: list[EpochMetrics] = []
    # Four steps an epoch: interrupted in the second epoch, resumed there, interrupted in the third.
    for on_step in (_killed_at(6), _killed_at(5)):
        with suppress(KeyboardInterrupt):
            for epoch in train(recipe, task, on_step, checkpoint):
                parts.append(epoch)
    torch.manual_seed(99)
    parts += train(recipe, task, checkpoint=checkpoint)
    assert [_numbers(epoch) for epoch in parts] == [_numbers(epoch) for epoch in whole]
    assert [epoch.epoch for epoch in parts] == [1, 2, 3]
    assert parts[0].seconds < parts[1].seconds < parts[2].seconds


def test_epochs_are_yielded_before_the_checkpoint_is_written(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "state.pt")
    epochs = train(CASES["sgdm"], tiny_task(), checkpoint=checkpoint)
    next(epochs)
    # If the log lacked an epoch that the checkpoint has, the run could never be completed.
    assert checkpoint.read(torch.device("cpu")) is None
    next(epochs)
    state = checkpoint.read(torch.device("cpu"))
    assert state is not None
    assert state["epoch"] == 1


class FailsWhenSaved:
    def __reduce__(self) -> object:
        raise ZeroDivisionError


def test_a_failed_write_leaves_the_old_state(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "state.pt")
    checkpoint.write({"epoch": 1, "tensor": torch.tensor([1.0])})
    with pytest.raises(ZeroDivisionError):
        checkpoint.write({"epoch": 2, "tensor": FailsWhenSaved()})
    state = checkpoint.read(torch.device("cpu"))
    assert state is not None
    assert state["epoch"] == 1
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []


COMMAND = [
    "table1",
    "--only",
    "cifar10-resnet18/sgd*",
    "--scale",
    "smoke",
    "--device",
    "cpu",
    "--threads",
    "1",
]

# Runs the command, and kills its own process without clean-up at the seventh SGD-PH step.
KILLED = """
import os, signal, sys
import torch
from experiments.running import recipe_files
from experiments.__main__ import main
from sgdph_fx import SGDPH
recipe_files.SMOKE["epochs"] = 3
taken, step = 0, SGDPH.step
def fatal(self, closure=None):
    global taken
    taken += 1
    if taken == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, closure)
SGDPH.step = fatal
main(sys.argv[1:])
"""


def test_a_killed_process_resumes_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SMOKE, "epochs", 3)
    write_cifar10_binary(tmp_path, 20)

    def arguments(out: str) -> list[str]:
        return [*COMMAND, "--data", str(tmp_path), "--out", str(tmp_path / out)]

    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments("killed")], cwd=ROOT, env=environment, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    before = _log(tmp_path / "killed")
    assert [(line["method"], line["epoch"]) for line in before] == [
        *(("sgdm", epoch) for epoch in (1, 2, 3)),
        ("sgd-ph", 1),
    ]
    for out in ("killed", "whole"):
        result = CliRunner().invoke(main, arguments(out))
        assert result.exit_code == 0, result.output
    after, whole = _log(tmp_path / "killed"), _log(tmp_path / "whole")
    assert after[: len(before)] == before
    timeless = [{key: value for key, value in line.items() if "seconds" not in key} for line in after]
    assert timeless == [{key: value for key, value in line.items() if "seconds" not in key} for line in whole]
    assert all(math.isfinite(line["train_loss"]) for line in whole)
    assert not list((tmp_path / "killed" / "checkpoints").iterdir())


def _log(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "epochs.jsonl").read_text().splitlines()]
