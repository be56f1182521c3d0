"""The log and the names of checkpoints: what was written before settings were renamed is still found."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest

from experiments.running.run_log import RunLog, run_id
from experiments.training.config import RunConfig
from experiments.training.metrics import EpochMetrics

CONFIG = RunConfig("vgg11", 8, "sgdm", 0.1, 5e-4, epochs=2)
DATA = {"dataset": "cifar10", "train_size": 40}

OLD_LINE = {
    "dataset": "cifar10", "train_size": 40, "judged_by": "test images",
    "network": "vgg11", "width": 8, "system": "sgdm", "lr": 0.1, "weight_decay": 0.0005, "epochs": 2,
    "batch_size": 128, "seed": 0, "decay_every": None, "options": {}, "judge_every": 2, "channels_last": False,
    "epoch": 1, "train_loss": 2.0, "train_accuracy": 30.0, "test_loss": None, "test_accuracy": None,
    "seconds": 1.0, "cpu_seconds": 0.5, "data_seconds": 0.1, "peak_bytes": None,
}  # fmt: skip


def _epoch(epoch: int, loss: float = 1.5) -> EpochMetrics:
    return EpochMetrics(epoch, loss, 50.0, 1.25, 60.0, 2.0 * epoch, 1.0, 0.1)


def test_the_log_returns_what_was_appended(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "epochs.jsonl", DATA)
    assert log.run(CONFIG).epochs == ()
    for epoch in (1, 2):
        assert not log.run(CONFIG).complete
        log.append(CONFIG, _epoch(epoch))
    assert log.run(CONFIG).epochs == (_epoch(1), _epoch(2))
    assert log.run(CONFIG).complete
    other = RunConfig("vgg11", 8, "sgdm", 0.01, 5e-4, epochs=2)
    assert log.run(other).epochs == ()
    assert RunLog(log.file, {**DATA, "train_size": 50}).run(CONFIG).epochs == ()


def test_the_log_survives_a_kill_in_the_middle_of_a_line(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "epochs.jsonl", DATA)
    log.append(CONFIG, _epoch(1, loss=9.0))
    log.append(CONFIG, _epoch(2, loss=9.0))
    log.file.write_bytes(log.file.read_bytes()[:-40])
    assert log.run(CONFIG).epochs == (_epoch(1, loss=9.0),)
    log.append(CONFIG, _epoch(1))
    log.append(CONFIG, _epoch(2))
    assert log.run(CONFIG).epochs == (_epoch(1), _epoch(2))


def test_a_loss_that_is_not_finite_is_null_in_the_log(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "epochs.jsonl", DATA)
    log.append(CONFIG, _epoch(1, loss=math.nan))
    (line,) = log.file.read_text().splitlines()
    assert json.loads(line, parse_constant=lambda name: pytest.fail(name))["train_loss"] is None
    assert log.run(CONFIG).epochs[0].diverged
    assert log.run(CONFIG).complete


def test_lines_with_old_names_are_read(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "epochs.jsonl", {**DATA, "evaluated_on": "test images"})
    log.file.write_text(json.dumps(OLD_LINE) + "\n")
    config = RunConfig("vgg11", 8, "sgdm", 0.1, 5e-4, epochs=2, eval_every=2)
    (epoch,) = log.run(config).epochs
    assert (epoch.train_loss, epoch.train_accuracy) == (2.0, 30.0)
    assert not epoch.evaluated
    log.append(config, _epoch(2))
    assert log.run(config).complete


def test_checkpoints_have_the_names_that_they_had_under_old_names() -> None:
    settings = {name: OLD_LINE[name] for name in list(OLD_LINE)[3:15]}
    data = {"dataset": "cifar10", "train_size": 40, "judged_by": "test images"}
    expected = hashlib.sha256(json.dumps([data, settings], sort_keys=True).encode()).hexdigest()[:20]
    config = RunConfig("vgg11", 8, "sgdm", 0.1, 5e-4, epochs=2, eval_every=2)
    described = {"dataset": "cifar10", "train_size": 40, "evaluated_on": "test images"}
    assert run_id(described, config) == expected


def test_runs_that_differ_in_any_setting_have_checkpoints_of_their_own() -> None:
    configs = [
        CONFIG,
        RunConfig("vgg11", 8, "sgdm", 0.1, 5e-4, epochs=2, precision="bfloat16"),
        RunConfig("vgg11", 8, "sgdm", 0.1, 5e-4, epochs=2, options={"nesterov": True}),
        RunConfig("vgg11", 8, "sgdm", 0.1, 5e-4, epochs=2, eval_every=2),
    ]
    ids = {run_id(DATA, config) for config in configs} | {run_id({**DATA, "train_size": 1}, CONFIG)}
    assert len(ids) == 5
