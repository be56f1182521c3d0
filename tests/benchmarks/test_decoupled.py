"""The benchmark of decoupled convolutions: three networks, and ratios to the first. No test depends on a time."""

from __future__ import annotations

import re

import torch
from click.testing import CliRunner
from torch import nn

from benchmarks.decoupled import NETWORKS, main
from benchmarks.step.workload import batch_of
from experiments.networks import build
from sgdph_fx.transform.decouple import Decoupled


def test_the_command_prints_a_ratio_for_each_network() -> None:
    done = CliRunner().invoke(main, ["--width", "2", "--batch", "2", "--rounds", "1"])
    assert done.exit_code == 0, done.output
    ratios = [float(ratio) for ratio in re.findall(r"ms +(\d+\.\d+)$", done.output, re.MULTILINE)]
    assert len(ratios) == len(NETWORKS)
    assert ratios[0] == 1


def test_all_networks_compute_the_same_and_the_second_is_fully_decoupled() -> None:
    images, _ = batch_of(2)
    made = {name: make(build("vgg11", width=2), images).eval() for name, make in NETWORKS.items()}
    convolutions = [m for m in made["decoupled"].modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 8
    assert all(isinstance(m, Decoupled) for m in convolutions)
    for net in made.values():
        torch.testing.assert_close(net(images), made["plain"](images))
