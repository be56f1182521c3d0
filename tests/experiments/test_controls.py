"""The recipes of the controls: every method trains, several at once, and all of it resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from experiments.__main__ import main
from experiments.running.recipe_files import read_recipe
from tests.experiments.dataset_files import write_cifar10_binary

FEW = ["--scale", "smoke", "--device", "cpu", "--threads", "1"]


METHODS = ["sgdm", "sgdm-wn", "sgd-ph", "sgd-ph-rademacher", "gradient", "adam-channelwise", "adamw"]
METHODS += ["muon-adamw"]


def _run(folder: Path, recipe: str, *arguments: str, out: str = "out") -> str:
    command = [recipe, *FEW, "--data", str(folder), "--out", str(folder / out), *arguments]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    return done.output


def _lines(folder: Path, out: str = "out") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / out / "epochs.jsonl").read_text().splitlines()]


def _only(row: str, *columns: str) -> list[str]:
    return [word for column in columns for word in ("--only", f"{row}/{column}")]


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("experiments.datasets.load.HELD_OUT", 20)
    write_cifar10_binary(tmp_path, 30)
    return tmp_path


def test_the_gradient_control_is_sgd_ph_with_that_probe() -> None:
    for name in ("controls", "controls-pinn"):
        experiment = read_recipe(name)
        for row in experiment.rows:
            gradient, ones = (experiment.cell(row, column) for column in ("gradient", "sgd-ph"))
            assert gradient.config.options == {"probe": "gradient"}
            assert gradient.grid == ones.grid


def test_longer_methods_have_half_as_many_epochs_again() -> None:
    for name in ("controls", "controls-pinn"):
        experiment = read_recipe(name)
        for row in experiment.rows:
            for column in ("sgdm", "gradient", "adamw"):
                longer, own = experiment.cell(row, f"{column}-longer"), experiment.cell(row, column)
                assert longer.config.epochs == 1.5 * own.config.epochs
                assert longer.tuned_as == column


def test_learning_rates_are_scaled_and_tau_is_not() -> None:
    experiment = read_recipe("controls")
    plain, scaled = (experiment.cell(row, "sgd-ph").grid for row in ("resnet18", "resnet18-b1024"))
    assert [point["lr"] for point in scaled] == pytest.approx([4 * point["lr"] for point in plain])
    assert [point["second_order_lr"] for point in scaled] == [point["second_order_lr"] for point in plain]


@pytest.mark.parametrize("method", METHODS)
def test_every_control_is_tuned_and_trained(method: str, images: Path) -> None:
    output = _run(images, "controls", *_only("vgg11", method))
    cell = read_recipe("controls", "smoke").cell("vgg11", method)
    tried = [line for line in _lines(images) if line["evaluated_on"] == "held-out images"]
    (final,) = [line for line in _lines(images) if line["evaluated_on"] == "test images"]
    assert len(tried) == len(cell.grid) == 12
    for line, point in zip(tried, cell.grid, strict=True):
        settings = {**line, **line["options"]}
        assert {name: settings[name] for name in point} == dict(point)
    best = max(tried, key=lambda line: (line["test_accuracy"], -line["test_loss"]))
    for name in ("lr", "weight_decay", "options"):
        assert final[name] == best[name]
    # Every trial is in the table, and the choice is in bold.
    (row,) = [line for line in output.splitlines() if line.startswith("| VGG-11") and "wd" in line]
    assert row.count("wd ") == 12
    assert row.count("**") == 2
    assert ("τ_SO" in row) == ("second_order_lr" in cell.grid[0])


@pytest.mark.parametrize("row", ["resnet18", "vgg19", "resnet18-no-norm", "vit"])
def test_every_network_trains(row: str, images: Path) -> None:
    _run(images, "controls", *_only(row, "adam-channelwise"))
    assert {line["network"] for line in _lines(images)} == {row}


def test_the_network_for_burgers_trains(tmp_path: Path) -> None:
    output = _run(tmp_path, "controls-pinn", *_only("burgers", "sgd-ph", "adamw"))
    assert "Correct digits after the last epoch" in output
    (final, *_) = [line for line in _lines(tmp_path) if line["evaluated_on"] == "test images"]
    assert (
        f"| Burgers' equation, 4 hidden layers of 40, here | – | {final['test_accuracy']:.2f} (1) |" in output
    )
    assert "| SGD-PH, ones − SGDM |" not in output


def test_several_jobs_train_what_one_does_and_resume(tmp_path: Path) -> None:
    cells = _only("burgers", "sgdm", "sgdm-longer", "muon-adamw")
    _run(tmp_path, "controls-pinn", *cells, out="one")
    whole = (tmp_path / "one" / "epochs.jsonl").read_text()
    # A killed launch has left a few runs, and half a line.
    log = tmp_path / "two" / "epochs.jsonl"
    log.parent.mkdir()
    log.write_text("".join(whole.splitlines(keepends=True)[:3]) + whole[:40])
    output = _run(tmp_path, "controls-pinn", *cells, "--jobs", "2", out="two")
    lines = [line for line in log.read_text().splitlines() if line.endswith("}")]
    log.write_text("\n".join(lines) + "\n")

    def numbers(out: str) -> list[tuple[object, ...]]:
        names = ("method", "lr", "weight_decay", "seed", "epochs", "epoch", "train_loss", "test_loss")
        return sorted(tuple(line[name] for name in names) for line in _lines(tmp_path, out))

    assert numbers("two") == numbers("one")
    assert "mlp-tanh sgdm seed 0 is done." in output


def test_a_missing_data_set_is_one_message_with_several_jobs(tmp_path: Path) -> None:
    command = ["controls", *FEW, "--data", str(tmp_path), "--out", str(tmp_path), "--jobs", "2"]
    done = CliRunner().invoke(main, [*command, *_only("vgg11", "sgdm")])
    assert done.exit_code == 1
    assert "cs.toronto.edu/~kriz" in done.output
