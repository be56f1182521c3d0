"""The quickstart from end to end on small files made here, and its plot against means taken by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from experiments import quickstart, tune
from experiments.reports.plots import comparison_figure
from experiments.running.run_log import Run
from experiments.training.config import RunConfig
from experiments.training.metrics import EpochMetrics
from tests.experiments.dataset_files import write_cifar10_binary


def _run(tmp_path: Path, *more: str) -> str:
    command = ["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--width", "8", "--epochs", "1"]
    result = CliRunner().invoke(quickstart.main, [*command, "--train-size", "128", *more])
    assert result.exit_code == 0, result.output
    return result.output


def test_quickstart_writes_its_results_and_resumes(tmp_path: Path) -> None:
    write_cifar10_binary(tmp_path, 26)
    output = _run(tmp_path)
    assert "━━━" not in output.splitlines()[0]
    out = tmp_path / "out"
    log = (out / "epochs.jsonl").read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    runs = {(line["network"], line["width"], line["method"], line["seed"]) for line in lines}
    assert len(runs) == len(lines)
    assert {("vgg11", 8), ("resnet18", 4)} == {(network, width) for network, width, _, _ in runs}
    assert {"sgdm", "sgd-ph"} <= {method for _, _, method, _ in runs}
    results = json.loads((out / "results.json").read_text())
    for comparison in results["comparisons"]:
        for method, outcome in comparison["methods"].items():
            (line,) = (r for r in lines if (r["network"], r["method"]) == (comparison["network"], method))
            assert outcome["test_accuracy"]["values"] == [line["test_accuracy"]]
            assert outcome["lr"] == line["lr"]
        assert (out / f"{comparison['network']}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")

    _run(tmp_path)
    assert (out / "epochs.jsonl").read_text() == log
    _run(tmp_path, "--seeds", "2")
    assert len((out / "epochs.jsonl").read_text().splitlines()) == 2 * len(lines)


@pytest.mark.parametrize("more", [[], ["--train-size", "999"]])
def test_data_that_cannot_be_used_is_one_message(more: list[str], tmp_path: Path) -> None:
    if more:
        write_cifar10_binary(tmp_path, 1)
    result = CliRunner().invoke(
        quickstart.main, ["--data", str(tmp_path), "--out", str(tmp_path / "out"), *more]
    )
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert ("999 were asked for" if more else "cs.toronto.edu/~kriz") in result.output


def test_tuning_evaluates_on_held_out_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.datasets.load.HELD_OUT", 20)
    write_cifar10_binary(tmp_path, 30)
    command = ["--data", str(tmp_path), "--out", str(tmp_path), "--network", "vgg11", "--method", "sgdm"]
    grid = ["--lr", "0.1", "--lr", "0.01", "--weight-decay", "0"]
    size = ["--width", "8", "--epochs", "1", "--train-size", "128"]
    result = CliRunner().invoke(tune.main, [*command, *grid, *size])
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (tmp_path / "epochs.jsonl").read_text().splitlines()]
    assert [(line["lr"], line["evaluated_on"]) for line in lines] == [
        (0.1, "held-out images"),
        (0.01, "held-out images"),
    ]
    assert "vgg11 sgdm lr 0.1 weight decay 0: " in result.output


def test_lines_of_the_plot_are_means_over_seeds() -> None:
    def run(seed: int, losses: list[float]) -> Run:
        recipe = RunConfig("vgg11", 8, "sgd-ph", 0.1, 0.0, epochs=2, seed=seed)
        epochs = (
            EpochMetrics(k, loss, 0, 0, 10 * loss, 5.0 * k + seed, 0, 0) for k, loss in enumerate(losses, 1)
        )
        return Run(recipe, tuple(epochs))

    drawn = comparison_figure(
        {"sgd-ph": [run(0, [3.0, 1.0]), run(2, [5.0, 2.0])]}, "title", lambda e: e.seconds, "time"
    )
    lines = [np.asarray(axes.lines[0].get_xydata()).T.tolist() for axes in drawn.axes]
    loss, loss_in_time, accuracy, accuracy_in_time = lines
    assert loss == [[1, 2], [4.0, 1.5]]
    assert loss_in_time == [[6.0, 11.0], [4.0, 1.5]]
    assert accuracy == [[1, 2], [40.0, 15.0]]
    assert accuracy_in_time == [[6.0, 11.0], [40.0, 15.0]]
