"""The step benchmark on a narrow network: arithmetic, sampling and outputs. No test depends on a time."""

from __future__ import annotations

import json
import runpy
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from benchmarks.step import __main__ as command_module
from benchmarks.step import measure as measure_module
from benchmarks.step.__main__ import main
from benchmarks.step.arithmetic import flops_of
from benchmarks.step.measure import measure
from benchmarks.step.memory import peak_megabytes
from benchmarks.step.plot import figure
from benchmarks.step.table import Row
from benchmarks.step.workload import batch_of, trainer


@pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True:UserWarning")
def test_the_command_writes_a_table_and_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What a process takes is measured below; a process for each would take most of this test's time.
    peaks = {"SGD": 400.0, "SGD-PH": 500.0, "SGD-PH, every 10th step": 440.0}
    asked: list[tuple[Any, ...]] = []

    def peak(name: str, *how: Any) -> float:
        asked.append((name, *how))
        return peaks[name]

    monkeypatch.setattr(command_module, "peak_megabytes", peak)
    file = tmp_path / "made" / "step.json"
    arguments = ["--width", "2", "--batch", "4", "--sample", "3", "--rounds", "1", "--out", str(file)]
    done = CliRunner().invoke(main, [*arguments, "--only", "SGD-PH", "--only", "SGD-PH, every 10th step"])
    assert done.exit_code == 0, done.output
    rows = json.loads(file.read_text())["rows"]
    assert [row["optimizer"] for row in rows] == ["SGD", "SGD-PH", "SGD-PH, every 10th step"]
    sgd, ph, tenth = rows
    assert (sgd["time"], sgd["arithmetic"], sgd["memory"]) == (1, 1, 1)
    assert 1.2 < ph["arithmetic"] < 1.5
    assert tenth["arithmetic"] - 1 == pytest.approx((ph["arithmetic"] - 1) / 10)
    assert asked == [(name, "resnet18", 2, 4, "cpu") for name in peaks]
    assert [row["megabytes"] for row in rows] == [400, 500, 440]
    assert [row["memory"] for row in rows] == [1, 1.25, 1.1]
    assert done.output.count("\n| SGD") == 3
    assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_sampled_steps_spread_over_the_cycle_and_stand_for_all_others() -> None:
    every, tenth = (trainer(name, "resnet18", 2) for name in ("SGD-PH", "SGD-PH, every 10th step"))
    # 41 second-order parameters: 20 norms with weight and bias, and the classifier's bias.
    steps, shares = zip(*every.sampled_steps(1000), strict=True)
    assert steps == tuple(range(41))
    assert shares == (1 / 41,) * 41
    assert [step for step, _ in every.sampled_steps(4)] == [5, 15, 25, 35]
    assert [step for step, _ in tenth.sampled_steps(4)] == [50, 150, 250, 350, 1]
    assert tenth.sampled_steps(4)[-1][1] == pytest.approx(0.9)
    assert [step for step, _ in tenth.sampled_steps(6)] == [30, 100, 170, 230, 1, 300, 370, 1]
    for sample in (4, 6, 1000):
        assert sum(share for _, share in tenth.sampled_steps(sample)) == pytest.approx(1)


def test_a_candidate_is_measured_at_the_step_that_it_is_set_to() -> None:
    made: Any = trainer("SGD-PH", "resnet18", 2)
    turns: list[None] = []
    costs = measure({"a": made}, batch_of(2), sample=2, rounds=2, done=lambda: turns.append(None))
    assert len(turns) == 4
    assert costs["a"].seconds > 0
    made.go_to(7)
    assert made.optimizer.due is [p for p in made.model.parameters() if p.dim() == 1][7]


def test_the_best_round_of_each_turn_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(measure_module, "_now", lambda device: clock[0])

    class Scripted:
        def __init__(self, shares: list[float], *seconds: float) -> None:
            self.shares, self.seconds = shares, iter((*seconds, *[0] * len(shares)))

        def sampled_steps(self, sample: int) -> list[tuple[int, float]]:
            return list(enumerate(self.shares))

        def go_to(self, step: int) -> None: ...

        def step(self, batch: object) -> None:
            clock[0] += next(self.seconds)

    # Each takes one warm-up step, then two turns, twice. At the end the arithmetic is counted.
    made: Any = {"two": Scripted([0.25, 0.75], 99, 100, 8, 4, 9), "one": Scripted([1.0], 99, 2, 5, 3, 4)}
    costs = measure(made, batch_of(2), sample=2, rounds=2, done=lambda: None)
    assert costs["two"].seconds == 0.25 * 4 + 0.75 * 8
    assert costs["one"].seconds == (2 + 4) / 2


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        # Operations of one pass: 2 × batch × positions × inputs × outputs × 3 × 3. A group sees its own inputs only.
        (lambda: nn.Conv2d(8, 12, 3, padding=1), 2 * 2 * 25 * 8 * 12 * 9),
        (lambda: nn.Conv2d(8, 12, 3, padding=1, groups=4), 2 * 2 * 25 * 8 * 12 * 9 / 4),
        (lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8), 2 * 2 * 25 * 8 * 9),
        (lambda: nn.ConvTranspose2d(8, 12, 3, padding=1, groups=4), 2 * 2 * 25 * 8 * 12 * 9 / 4),
        (lambda: nn.ConvTranspose2d(8, 12, 3, stride=2), 2 * 2 * 25 * 8 * 12 * 9),
    ],
)
def test_each_gradient_of_a_convolution_counts_as_much_as_its_forward_pass(
    make: Any, expected: float
) -> None:
    module = make()
    x = torch.randn(2, 8, 5, 5, requires_grad=True)
    assert flops_of(lambda: module(x)) == expected
    assert flops_of(lambda: module(x).sum().backward()) == 3 * expected
    assert flops_of(lambda: module(x.detach()).sum().backward()) == 2 * expected


def test_without_a_gpu_the_command_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = CliRunner().invoke(main, ["--device", "cuda"])
    assert done.exit_code == 2
    assert "--device cuda: torch finds no GPU here" in " ".join(done.output.split())


def test_the_peak_is_the_childs_alone() -> None:
    ballast = bytearray(400 * 2**20)
    ballast[:: 2**12] = b"x" * len(ballast[:: 2**12])
    holding = peak_megabytes("SGD-PH", "resnet18", 2, 2)
    del ballast
    assert holding > 50
    assert abs(holding - peak_megabytes("SGD-PH", "resnet18", 2, 2)) < 100


def test_the_hessian_of_a_quarter_takes_a_quarter_of_the_batch() -> None:
    made: Any = trainer("SGD-PH, of a quarter", "resnet18", 2)
    sizes: list[int] = []
    made.model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    made.step(batch_of(8))
    assert sizes == [8, 2]


def test_the_plot_has_a_bar_for_each_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        Row("SGD", 8, 1, 1, 1, None, None),
        Row("A", 8, 2, 2, 2, None, None),
        Row("A", 16, 3, 3, 3, 9, 1.5),
    ]
    time, memory = figure(rows, "").axes
    assert [bar.get_width() for bars in time.containers for bar in bars] == [2, 3]
    assert [bar.get_width() for bars in memory.containers for bar in bars] == [1.5]
    assert [label.get_text() for label in time.get_yticklabels()] == ["A"]
    files = [tmp_path / name for name in ("a.json", "b.json")]
    for file, some in zip(files, (rows[:2], rows[2:]), strict=True):
        file.write_text(json.dumps({"rows": [asdict(row) for row in some]}))
    # Files from before the column was renamed are read, too.
    files[0].write_text(files[0].read_text().replace('"optimizer"', '"contender"'))
    out = tmp_path / "both.png"
    monkeypatch.setattr(sys, "argv", ["plot", *map(str, files), str(out)])
    monkeypatch.delitem(sys.modules, "benchmarks.step.plot")  # it is run as a program, anew
    runpy.run_module("benchmarks.step.plot", run_name="__main__")
    assert out.read_bytes().startswith(b"\x89PNG")
