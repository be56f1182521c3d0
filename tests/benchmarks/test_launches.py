"""Counted operations: a hand-derived count, and what a step of SGD-PH may start beside SGD's."""

from __future__ import annotations

import torch
from click.testing import CliRunner

from benchmarks import launches


def test_views_and_empty_memory_start_nothing() -> None:
    x = torch.ones(4, 3)

    def step() -> None:
        y = x.t().reshape(-1)[2:].view(2, 5)  # reshape copies: one clone
        torch.empty_like(y)
        torch.mm(y, y.t()).add_(1)

    assert launches._counted(step) == {"clone": 1, "mm": 1, "add_": 1}


def test_an_ordinary_step_starts_few_operations_more_than_sgd() -> None:
    """Forward and backward are SGD's own; the step has six multi-tensor lines, and numbers that the device keeps."""
    found = launches.count("resnet18")
    assert found.sgd.total() > 150
    assert found.between["convolution_backward"] == found.sgd["convolution_backward"] == 20
    assert found.between.total() - found.sgd.total() <= 40


def test_the_command_prints_a_line_for_each_network() -> None:
    done = CliRunner().invoke(launches.main, ["--network", "vit", "--most", "2"])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[2].startswith("| vit | ")
    assert done.output.count("between refreshes:") == 1
