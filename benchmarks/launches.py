"""Count the operations that a training step starts, as ratios to SGD's: what a GPU's queue and its host have to take.

``python -m benchmarks.launches --network resnet18``

This needs no GPU: a network of a few channels starts as many operations as the wide one. Views and allocations start no
kernel and are left out. A GPU's own kernels differ in places, so the counts tell where launches come from, and not how
long a step takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.step.workload import batch_of
from experiments.networks import build
from sgdph_fx import SGDPH, prepare

__all__ = ["NETWORKS", "Counts", "count", "main"]

NETWORKS = ("resnet18", "vgg19", "convnext", "vit")
WIDTH = 8
WARM_UP = 3
NEVER = 10**9
# They make or name memory, compare shapes or dtypes, or tell a profiler something.
_SILENT = ("empty", "new_empty", "_unsafe_view", "is_same_size", "promote_types", "_record_function")


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations by name, without views and allocations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if not func.is_view and not name.startswith(_SILENT):
            self.counted[name] += 1
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True, slots=True)
class Counts:
    """Operations by name, for each step.

    Args:
        sgd: torch's SGD, its default on a GPU.
        between: SGD-PH, a step that refreshes no Hessian.
        refresh: SGD-PH, the mean over one Hessian cycle in which every step refreshes one.
    """

    sgd: Counter[str]
    between: Counter[str]
    refresh: dict[str, float]


def count(network: str) -> Counts:
    """Count the operations of training steps; those of SGD-PH are steps that the device decides, as on a GPU.

    Args:
        network: A name among :data:`NETWORKS`.
    """
    between, _ = _sgd_ph(network, interval=NEVER)
    refresh, length = _sgd_ph(network, interval=1)
    cycle = sum((_counted(refresh) for _ in range(length)), Counter())
    mean = {name: times / length for name, times in cycle.items()}
    return Counts(_counted(_sgd(network)), _counted(between), mean)


def _sgd(network: str) -> Callable[[], None]:
    net = build(network, width=WIDTH).train()
    optimizer = torch.optim.SGD(net.parameters(), 1e-5, momentum=0.9, weight_decay=1e-4, foreach=True)
    return _warm(net, optimizer, lambda loss: loss.backward())


def _sgd_ph(network: str, *, interval: int) -> tuple[Callable[[], None], int]:
    """Steps of SGD-PH, and how many of them make a Hessian cycle if each refreshes one."""
    net, groups, _ = prepare(build(network, width=WIDTH).train(), batch_of(2)[0])
    optimizer = SGDPH(groups, 1e-5, weight_decay=1e-4, hessian_interval=interval, capturable=True)
    length = sum(len(group["params"]) for group in groups if group["order"] == 2)
    return _warm(net, optimizer, optimizer.backward), length


def _warm(
    net: nn.Module, optimizer: torch.optim.Optimizer, backward: Callable[[Any], object]
) -> Callable[[], None]:
    """A training step that has made all state."""
    images, labels = batch_of(2)

    def step() -> None:
        optimizer.zero_grad()
        backward(cross_entropy(net(images), labels))
        optimizer.step()

    for _ in range(WARM_UP):
        step()
    return step


def _counted(step: Callable[[], None]) -> Counter[str]:
    watch = _Operations()
    with watch:
        step()
    return watch.counted.copy()


@click.command(help="Count the operations of a training step, as ratios to SGD's. Needs no GPU.")
@click.option("--network", "networks", type=click.Choice(NETWORKS), multiple=True, default=NETWORKS)
@click.option(
    "--most", type=click.IntRange(0), default=0, help="Name so many that SGD does not start as often."
)
def main(networks: tuple[str, ...], most: int) -> None:
    """Print a line for each network, and the operations that SGD-PH adds."""
    click.echo("| network | SGD | between refreshes | refresh |\n|---|---|---|---|")
    for network in networks:
        found = count(network)
        sgd = found.sgd.total()
        columns = [f"{n:.0f} ({n / sgd:.2f})" for n in (found.between.total(), sum(found.refresh.values()))]
        click.echo(f"| {network} | {sgd} | {' | '.join(columns)} |")
        for form, counted in (("between refreshes", found.between), ("refresh", found.refresh)):
            added = {name: times - found.sgd[name] for name, times in counted.items()}
            longest = sorted(added.items(), key=lambda pair: -pair[1])[:most]
            if longest:
                click.echo(f"  {form}: " + ", ".join(f"{name} +{times:.1f}" for name, times in longest))


if __name__ == "__main__":
    main()
