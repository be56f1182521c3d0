"""The benchmark of rules: what lies above a second-order parameter, who differentiates it, and the page of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner
from torch import Tensor, nn

from benchmarks.coverage.sample import Sample, noise
from benchmarks.rules.__main__ import main
from benchmarks.rules.page import page
from benchmarks.rules.record import Found, Record, read, record_of


class Net(nn.Module):
    """A convolution, a norm, and above the norm: ReLU, hypot, a product that has no second derivative, a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.conv(x)))
        return torch.hypot(y, y + 1) + Once.apply(y)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Any:
        return g * 2


def sample(batch: int) -> Sample:
    return Sample(Net(), (noise(batch, 3, 6, 6),))


def test_what_lies_above_a_second_order_parameter_is_counted() -> None:
    record = record_of("made up", "net", sample)
    assert record.failed == ""
    assert record.parameters == 2  # the norm's weight and bias
    counts = {name: (found.count, found.own_rule) for name, found in record.operations.items()}
    # The convolution is below the norm. The loss is the sum of mean squares: a power, a mean, a stack, a sum.
    assert counts == {
        "NativeBatchNormBackward0": (1, 1),
        "ReluBackward0": (1, 1),
        "AddBackward0": (2, 2),
        "HypotBackward0": (1, 0),
        f"{__name__}.Once": (1, 0),
        "PowBackward0": (1, 1),
        "MeanBackward0": (1, 1),
        "StackBackward0": (1, 1),
        "SumBackward0": (1, 1),
    }
    refused = {name for name, found in record.operations.items() if found.refused}
    assert refused == {f"{__name__}.Once"}
    priced = {name for name, found in record.operations.items() if found.seconds > 0 and found.plain > 0}
    assert priced == counts.keys() - refused


def test_a_model_that_cannot_be_read_says_why() -> None:
    record = record_of("made up", "none", lambda batch: Sample(nn.Identity(), (noise(batch),)))
    assert record.failed == "NothingToTrainError: Identity has no parameters, so there is nothing to train."


RECORDS = [
    Record("a", "one", {"ReluBackward0": Found(3, 3, 2.0, 1.0), "HypotBackward0": Found(1, 0, 9.0, 1.0)}, 2),
    Record("a", "two", {"ReluBackward0": Found(5, 5, 4.0, 1.0), "m.Once": Found(1, 0, refused="none")}, 1),
    Record("a", "three", failed="ImportError: no"),
]


def test_the_page_sums_up_and_lists_what_falls_back_first() -> None:
    text = page(RECORDS)
    assert "In 2 models, 1 of 3 kinds of operations have a rule of their own (33.3%)" in " ".join(
        text.split()
    )
    assert "8 of 10 operations (80.00%). 0 models need no fallback." in " ".join(text.split())
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[1:] == [
        "| Hypot | falls back | 1 | 1 | 9.0 |",
        "| m.Once | refused | 1 | 1 | – |",
        "| Relu | own rule | 2 | 8 | 4.0 |",
    ]
    assert "- a three: ImportError: no" in text
    assert "LogSoftmax" in text.partition("## Rules that none")[2]


def test_the_command_writes_a_log_that_it_reads_again(tmp_path: Path) -> None:
    log = tmp_path / "rules.jsonl"
    arguments = ["--zoo", "torchvision", "--only", "squeezenet1_1", "--out", str(log)]
    for _ in range(2):  # what is measured is not measured again
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, done.output
    (record,) = read(log)
    assert record.operations["ConvolutionBackward0"].own_rule > 20
    assert json.loads(log.read_text(encoding="utf-8"))["model"] == "squeezenet1_1"
    shown = CliRunner().invoke(main, ["--render", str(log)])
    assert shown.output.startswith("# Operations\n")
    assert "| Convolution | own rule | 1 |" in shown.output
