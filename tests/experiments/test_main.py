"""The command on made data sets, and its tables and plots against means taken by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from experiments import page, tables
from experiments.__main__ import main
from experiments.outcomes import Outcome, gather
from experiments.plots import curves
from experiments.recipe_files import read
from experiments.records import Log
from experiments.training import Epoch
from tests.experiments.made_files import (
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
    systems = ["sgdm", "adam", "adamw", "adabelief", "adahessian", "apollo", "sgd-ph"]
    assert [(line["system"], line["width"], line["train_size"]) for line in lines] == [
        (system, 8, 64) for system in systems
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
    assert [(line["network"], line["system"]) for line in _lines(tmp_path)] == [
        ("vgg19", "sgdm"),
        ("vgg19", "sgdm-wn"),
        ("vgg19", "sgd-ph"),
        ("vgg19-bn", "sgdm"),
        ("vgg19-bn", "sgd-ph"),
        ("resnet50", "sgd-ph"),
        ("vgg11-bn", "sgd-ph"),
    ]


def test_a_figure_takes_the_runs_of_its_table(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(("recipe", "told"), [("table1", "cifar-100-binary"), ("table2", "Ravi")])
def test_a_missing_data_set_is_one_message(recipe: str, told: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [recipe, *FEW, "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert told in result.output
    assert str(tmp_path) in result.output


def test_a_pattern_that_no_cell_has_is_an_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["table8", *FEW, "--out", str(tmp_path), "--only", "batch32"])
    assert result.exit_code == 1
    assert "resnet18/batch32" in result.output


def test_tuning_takes_the_best_of_the_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.data.HELD_OUT", 20)
    write_cifar10_binary(tmp_path, 64)
    _run(tmp_path, "cpu", "vgg11/sgdm", "vgg11/sgdm-longer")
    tried = [line for line in _lines(tmp_path) if line["judged_by"] == "held-out images"]
    tested = [line for line in _lines(tmp_path) if line["judged_by"] == "test images"]
    assert [(line["lr"], line["weight_decay"]) for line in tried] == [
        (lr, decay) for lr in (0.01, 0.03, 0.1) for decay in (5e-4, 5e-3)
    ]
    best = max(tried, key=lambda line: (line["test_accuracy"], -float(str(line["test_loss"]))))
    assert {(line["lr"], line["weight_decay"]) for line in tested} == {(best["lr"], best["weight_decay"])}
    assert {line["seed"] for line in tried}.isdisjoint(line["seed"] for line in tested)


def _logged(tmp_path: Path) -> list[Outcome]:
    """Three seeds of two systems of a two-epoch Table 4, with accuracies and times that are easy to work with."""
    experiment = read("table4", "smoke")
    log = Log(tmp_path / "epochs.jsonl", {"dataset": "cifar100", "train_size": 64, "test_size": 64,
                                          "judged_by": "test images"})  # fmt: skip
    for system, accuracies, seconds in (
        ("sgdm", (60.0, 61.0, 62.0), 2.0),
        ("sgd-ph-wn", (61.0, 63.0, 65.0), 3.0),
    ):
        recipe = experiment.cell("vgg19", system).recipe
        for seed, accuracy in enumerate(accuracies):
            run = type(recipe)(**{**{n: getattr(recipe, n) for n in recipe.__slots__}, "seed": seed})
            log.append(run, Epoch(1, 1.0, 50.0, 1.0, accuracy, 4 * seconds, seconds, 0.2 * seconds))
    return gather(experiment, log.file, seeds=3)


def test_tables_are_means_deviations_ratios_and_intervals(tmp_path: Path) -> None:
    experiment, outcomes = read("table4", "smoke"), _logged(tmp_path)
    assert "| VGG-19, here | 61.00 ± 1.00 (3) | – | 63.00 ± 2.00 (3) | – | – |" in tables.accuracy(
        experiment, outcomes
    )
    assert "65.56 ± 0.41" in tables.accuracy(experiment, outcomes)
    cost = tables.cost(experiment, outcomes).splitlines()
    # Processor time: 2 and 3 seconds an epoch; a fifth of that in data, of a wall time that is four times it.
    assert cost[2:] == [
        "| VGG-19 | SGDM | 2.00 s | 1.00 | – | 5.0% |",
        "| VGG-19 | SGD-PH+WN | 3.00 s | 1.50 | – | 5.0% |",
    ]
    # Differences 1, 2, 3: 2 ± 4.303 / √3.
    last = tables.differences(experiment, outcomes, [("sgd-ph-wn", "sgdm")]).splitlines()[-1]
    assert last == "| VGG-19 | SGD-PH+WN − SGDM | +2.00 | -0.48 to +4.48 | 3 | yes |"


def test_plots_draw_means_over_seeds(tmp_path: Path) -> None:
    outcomes = _logged(tmp_path)
    fig = curves(read("table4", "smoke"), outcomes, ["test_accuracy", "train_accuracy"])
    test, train = fig.axes
    assert [line.get_label() for line in test.lines] == ["SGDM", "SGD-PH+WN"]
    assert [np.asarray(line.get_xydata()).tolist() for line in test.lines] == [[[1, 61.0]], [[1, 63.0]]]
    assert [np.asarray(line.get_xydata()).tolist() for line in train.lines] == [[[1, 50.0]], [[1, 50.0]]]


def test_the_page_is_written_anew_between_its_marks_alone(tmp_path: Path) -> None:
    old = "before\n<!-- cpu: accuracy -->\n\nold\n\n<!-- end -->\nbetween\n<!-- cpu: cost -->\n<!-- end -->\nafter\n"
    once = page.render(old, tmp_path / "none.jsonl")
    assert once.startswith("before\n<!-- cpu: accuracy -->\n\n|")
    assert "old" not in once
    assert "\nbetween\n" in once
    assert once.endswith("<!-- end -->\nafter\n")
    assert page.render(once, tmp_path / "none.jsonl") == once


def test_the_page_of_results_is_what_its_log_says() -> None:
    text = (page.DOCS / "results.md").read_text(encoding="utf-8")
    assert "<!-- cpu: accuracy -->" in text
    assert page.render(text, page.DOCS / "results" / "cpu.jsonl") == text
