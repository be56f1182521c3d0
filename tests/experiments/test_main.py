"""The command on small data sets made here, and its tables and plots against means taken by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from experiments import page
from experiments.__main__ import main
from experiments.reports import tables
from experiments.reports.plots import experiment_figure
from experiments.running.recipe_files import read_recipe
from experiments.running.results import CellResult, collect_results
from experiments.running.run_log import RunLog
from experiments.training.metrics import EpochMetrics
from tests.experiments.dataset_files import (
    write_cifar10_binary,
    write_cifar100,
    write_image_folder,
    write_ravi_split,
)

FEW = ["--scale", "smoke", "--device", "cpu", "--threads", "1", "--workers", "0"]


def _run(folder: Path, recipe: str, *only: str) -> str:
    chosen = [word for pattern in only for word in ("--only", pattern)]
    command = [recipe, *FEW, "--data", str(folder), "--out", str(folder / "out"), *chosen]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    return result.output


def _lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "out" / "epochs.jsonl").read_text().splitlines()]


def test_every_system_of_table_1_trains_by_one_command(tmp_path: Path) -> None:
    write_cifar10_binary(tmp_path, 64)
    output = _run(tmp_path, "table1", "cifar10-resnet18/*")
    lines = _lines(tmp_path)
    methods = ["sgdm", "adam", "adamw", "adabelief", "adahessian", "apollo", "sgd-ph"]
    assert [(line["method"], line["width"], line["train_size"]) for line in lines] == [
        (method, 8, 64) for method in methods
    ]
    (row,) = (line for line in output.splitlines() if line.startswith("| CIFAR-10, ResNet-18, here"))
    assert row.split(" | ")[1:] == [
        *(f"{line['test_accuracy']:.2f} (1)" for line in lines[:-1]),
        f"{lines[-1]['test_accuracy']:.2f} (1) |",
    ]
    (paper,) = (line for line in output.splitlines() if line.startswith("| CIFAR-10, ResNet-18, paper"))
    assert "92.95 ± 0.25" in paper
    assert (tmp_path / "out" / "table1.md").read_text() in output


def test_networks_of_the_tables_train(tmp_path: Path) -> None:
    write_cifar100(tmp_path, 64, pickled=False)
    _run(tmp_path, "table4")
    _run(tmp_path, "table6", "cifar100-resnet50/tau0_01", "cifar100-vgg11/tau0_01")
    assert [(line["network"], line["method"]) for line in _lines(tmp_path)] == [
        ("vgg19", "sgdm"),
        ("vgg19", "sgdm-wn"),
        ("vgg19", "sgd-ph"),
        ("vgg19-bn", "sgdm"),
        ("vgg19-bn", "sgd-ph"),
        ("resnet50", "sgd-ph"),
        ("vgg11-bn", "sgd-ph"),
    ]


def test_a_figure_draws_the_runs_of_its_table(tmp_path: Path) -> None:
    write_cifar100(tmp_path, 64, pickled=False)
    _run(tmp_path, "table4", "vgg19/sgdm")
    before = _lines(tmp_path)
    _run(tmp_path, "figure5", "vgg19/sgdm")
    assert _lines(tmp_path) == before
    assert (tmp_path / "out" / "figure5.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_image_files_train(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write_image_folder(tmp_path / "imagenet" / part, [f"n{k}" for k in range(8)], 8)
    write_ravi_split(tmp_path / "mini-imagenet", [f"c{k}" for k in range(8)], 48)
    _run(tmp_path, "table3", "*/sgd-ph")
    _run(tmp_path, "table2", "resnet18/sgdm")
    assert [(line["network"], line["dataset"], line["pixels"]) for line in _lines(tmp_path)] == [
        ("resnet18-imagenet", "imagenet", 64),
        ("resnet18-imagenet", "mini-imagenet", 64),
    ]


@pytest.mark.parametrize(("recipe", "words"), [("table1", "cifar-100-binary"), ("table2", "Ravi")])
def test_a_missing_data_set_is_one_message(recipe: str, words: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [recipe, *FEW, "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert words in result.output
    assert str(tmp_path) in result.output


def test_a_pattern_that_no_cell_has_is_an_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["table8", *FEW, "--out", str(tmp_path), "--only", "batch32"])
    assert result.exit_code == 1
    assert "resnet18/batch32" in result.output


def test_tuning_chooses_the_best_of_the_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.datasets.load.HELD_OUT", 20)
    write_cifar10_binary(tmp_path, 64)
    _run(tmp_path, "cpu", "vgg11/sgdm", "vgg11/sgdm-longer")
    tried = [line for line in _lines(tmp_path) if line["evaluated_on"] == "held-out images"]
    tested = [line for line in _lines(tmp_path) if line["evaluated_on"] == "test images"]
    assert [(line["lr"], line["weight_decay"]) for line in tried] == [
        (lr, decay) for lr in (0.01, 0.03, 0.1) for decay in (5e-4, 5e-3)
    ]
    best = max(tried, key=lambda line: (line["test_accuracy"], -float(str(line["test_loss"]))))
    assert {(line["lr"], line["weight_decay"]) for line in tested} == {(best["lr"], best["weight_decay"])}
    assert {line["seed"] for line in tried}.isdisjoint(line["seed"] for line in tested)


def _logged(tmp_path: Path) -> list[CellResult]:
    """Log three seeds of two methods of Table 4, with numbers that are easy to compute with."""
    experiment = read_recipe("table4", "smoke")
    log = RunLog(tmp_path / "epochs.jsonl", {"dataset": "cifar100", "train_size": 64, "test_size": 64,
                                          "evaluated_on": "test images"})  # fmt: skip
    for method, accuracies, seconds in (
        ("sgdm", (60.0, 61.0, 62.0), 2.0),
        ("sgd-ph-wn", (61.0, 63.0, 65.0), 3.0),
    ):
        config = experiment.cell("vgg19", method).config
        for seed, accuracy in enumerate(accuracies):
            log.append(
                replace(config, seed=seed),
                EpochMetrics(1, 1.0, 50.0, 1.0, accuracy, 4 * seconds, seconds, 0.2 * seconds),
            )
    return collect_results(experiment, log.file, seeds=3)


def test_tables_are_means_deviations_ratios_and_intervals(tmp_path: Path) -> None:
    experiment, outcomes = read_recipe("table4", "smoke"), _logged(tmp_path)
    assert "| VGG-19, here | 61.00 ± 1.00 (3) | – | 63.00 ± 2.00 (3) | – | – |" in tables.scores(
        experiment, outcomes
    )
    assert "65.56 ± 0.41" in tables.scores(experiment, outcomes)
    cost = tables.cost(experiment, outcomes).splitlines()
    # Processor time is 2 and 3 seconds an epoch, wall time four times that, and a fifth of the former is for data.
    assert cost[2:] == [
        "| VGG-19 | SGDM | 2.00 s | 1.00 | – | 5.0% |",
        "| VGG-19 | SGD-PH+WN | 3.00 s | 1.50 | – | 5.0% |",
    ]
    # Differences 1, 2, 3: 2 ± 4.303 / √3.
    last = tables.differences(experiment, outcomes, [("sgd-ph-wn", "sgdm")]).splitlines()[-1]
    assert last == "| VGG-19 | SGD-PH+WN − SGDM | +2.00 | -0.48 to +4.48 | 3 | yes |"


def test_plots_draw_means_over_seeds(tmp_path: Path) -> None:
    outcomes = _logged(tmp_path)
    figure = experiment_figure(read_recipe("table4", "smoke"), outcomes, ["test_accuracy", "train_accuracy"])
    test, train = figure.axes
    assert [line.get_label() for line in test.lines] == ["SGDM", "SGD-PH+WN"]
    assert [np.asarray(line.get_xydata()).tolist() for line in test.lines] == [[[1, 61.0]], [[1, 63.0]]]
    assert [np.asarray(line.get_xydata()).tolist() for line in train.lines] == [[[1, 50.0]], [[1, 50.0]]]


def test_the_page_is_rewritten_between_its_marks_only(tmp_path: Path) -> None:
    old = "before\n<!-- cpu: accuracy -->\n\nold\n\n<!-- end -->\nbetween\n<!-- cpu: cost -->\n<!-- end -->\nafter\n"
    once = page.render(old, tmp_path)
    assert once.startswith("before\n<!-- cpu: accuracy -->\n\n|")
    assert "old" not in once
    assert "\nbetween\n" in once
    assert once.endswith("<!-- end -->\nafter\n")
    assert page.render(once, tmp_path) == once


def test_the_pages_of_results_are_what_their_logs_say() -> None:
    texts = [file.read_text(encoding="utf-8") for file in page.pages(page.DOCS)]
    assert any("<!-- cpu: accuracy -->" in text for text in texts)
    for text in texts:
        assert page.render(text, page.DOCS / "results") == text
