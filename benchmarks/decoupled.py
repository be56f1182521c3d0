"""Time forward and backward of VGG-11: plain, decoupled, and with torch's weight norm.

``python -m benchmarks.decoupled --batch 128``
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import click
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from benchmarks.step.workload import batch_of
from experiments.networks import build
from sgdph_fx import prepare

__all__ = ["NETWORKS", "main"]


def _decoupled(net: nn.Module, images: Tensor) -> nn.Module:
    return prepare(net, images[:2]).model


def _weight_normed(net: nn.Module, images: Tensor) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            weight_norm(module)
    return net


NETWORKS: Mapping[str, Callable[[nn.Module, Tensor], nn.Module]] = {
    "plain": lambda net, images: net,
    "decoupled": _decoupled,
    "torch's weight_norm": _weight_normed,
}
"""By name: (network, images) ↦ the network to time. All are compared with the first."""


@click.command(help="Time forward and backward, in turns on one core, as ratios to the plain network's.")
@click.option("--width", type=click.IntRange(1), default=64, show_default=True)
@click.option("--batch", type=click.IntRange(2), default=128, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=15, show_default=True)
def main(width: int, batch: int, rounds: int) -> None:
    """Print a line for each network: the median processor time over the rounds."""
    torch.set_num_threads(1)
    images, labels = batch_of(batch)
    networks = {name: make(build("vgg11", width=width), images) for name, make in NETWORKS.items()}
    taken: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(rounds + 1):
        for name, net in networks.items():
            taken[name].append(_timed(net, images, labels))
    medians = {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}
    for name, seconds in medians.items():
        click.echo(f"{name:20} {seconds * 1e3:7.0f} ms  {seconds / medians['plain']:.3f}")


def _timed(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    net.zero_grad()
    started = time.process_time()
    torch.autograd.backward(nn.functional.cross_entropy(net(images), labels))
    return time.process_time() - started


if __name__ == "__main__":
    main()
