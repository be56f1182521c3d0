"""The training of the quickstart page: SGD-PH beside SGD with momentum, on real images, on one CPU core.

``python -m experiments.quickstart --data DIR`` trains VGG-11 without normalization and ResNet-18 with batch
norm, both narrow, from the same starts and on the same batches with each optimizer; then it writes
``results.json`` and a plot of the curves for each network.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table

from experiments.curves import LABELS, figure
from experiments.data import DATASETS, MissingDataError
from experiments.records import Run
from experiments.running import Bench
from experiments.training import Epoch, Recipe
from sgdph_fx.report.files import replacing, write_text

__all__ = ["COMPARISONS", "Comparison", "main", "summarise"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One network, and the systems that train it.

    Args:
        network: A key of :data:`experiments.networks.NETWORKS`.
        share: Its width as a share of the width asked for.
        settings: System → its learning rate and weight decay, found by :mod:`experiments.tune`; the page
            docs/quickstart.md holds the grid.
    """

    network: str
    share: float
    settings: Mapping[str, tuple[float, float]]

    def recipes(self, width: int, epochs: int, seeds: Sequence[int]) -> list[Recipe]:
        """A run for each seed and system, those of one seed side by side."""
        narrow = max(1, int(width * self.share))
        return [
            Recipe(self.network, narrow, system, lr, weight_decay, epochs, seed=seed)
            for seed in seeds
            for system, (lr, weight_decay) in self.settings.items()
        ]


COMPARISONS = (
    Comparison("vgg11", 1, {"sgdm": (0.03, 5e-4), "sgdm-wn": (0.03, 5e-4), "sgd-ph": (0.03, 5e-4)}),
    Comparison("resnet18", 1 / 2, {"sgdm": (0.1, 5e-4), "sgd-ph": (0.1, 5e-3)}),
)


@click.command(help="Train SGD-PH beside SGD with momentum, on real images.")
@click.option("--data", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
@click.option("--dataset", type=click.Choice(list(DATASETS)), default="cifar10", show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=15, show_default=True)
@click.option(
    "--seeds", type=click.IntRange(1), default=1, show_default=True, help="Number of seeds, from 0."
)
@click.option(
    "--width",
    type=click.IntRange(8),
    default=16,
    show_default=True,
    help="Channels of VGG-11's first convolution; ResNet-18 has half as many. The published ones have 64.",
)
@click.option("--train-size", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/quickstart"), show_default=True)
def main(
    data: Path,
    dataset: str,
    epochs: int,
    seeds: int,
    width: int,
    train_size: int,
    threads: int,
    device: str,
    out: Path,
) -> None:
    """Run every comparison, then write the results; runs that the log in ``out`` holds are not run again."""
    torch.set_num_threads(threads)
    try:
        bench = Bench.in_memory(dataset, data, train_size, False, out, torch.device(device))
    except (MissingDataError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    console = Console()
    summaries = []
    for comparison in COMPARISONS:
        recipes = comparison.recipes(width, epochs, range(seeds))
        runs = _by_system(bench.run(recipes, console))
        summaries.append(summarise(runs))
        _plot(runs, f"{dataset}, {train_size:,} training images", device, out)
        console.print(_table(summaries[-1]))
    setting = {**bench.images, "threads": threads, "device": device, "torch": torch.__version__}
    results = {**setting, "machine": platform.machine(), "comparisons": summaries}
    write_text(out / "results.json", json.dumps(results, indent=2) + "\n")
    console.print(f"Written to {out}: results.json, epochs.jsonl and the curves.")


def summarise(runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """The outcome of one comparison, fit for JSON; accuracies and losses are those after the last epoch."""
    first = next(iter(runs.values()))[0].recipe
    return {
        "network": first.network,
        "width": first.width,
        "epochs": first.epochs,
        "batch_size": first.batch_size,
        "systems": {
            system: {
                "lr": of_system[0].recipe.lr,
                "weight_decay": of_system[0].recipe.weight_decay,
                "seeds": [run.recipe.seed for run in of_system],
                "diverged": sum(run.epochs[-1].diverged for run in of_system),
                **{
                    name: _spread([getattr(run.epochs[-1], name) for run in of_system])
                    for name in ("test_accuracy", "test_loss", "train_loss", "cpu_seconds", "seconds")
                },
            }
            for system, of_system in runs.items()
        },
    }


def _spread(values: Sequence[float]) -> dict[str, Any]:
    finite = [value for value in values if value == value]
    deviation = stdev(finite) if len(finite) > 1 else None
    return {"mean": fmean(finite) if finite else None, "deviation": deviation, "values": finite}


def _by_system(runs: Sequence[Run]) -> dict[str, list[Run]]:
    systems: dict[str, list[Run]] = {}
    for run in runs:
        systems.setdefault(run.recipe.system, []).append(run)
    return systems


def _plot(runs: Mapping[str, Sequence[Run]], title: str, device: str, out: Path) -> None:
    recipe = next(iter(runs.values()))[0].recipe
    # Processor time leaves out what other programs take; on an accelerator only wall time tells.
    seconds, label = (_cpu, "processor time (s)") if device == "cpu" else (_wall, "time (s)")
    heading = f"{recipe.network}, width {recipe.width}: {title}"
    with replacing(out / f"{recipe.network}.png") as part:
        figure(runs, heading, seconds, label).savefig(part, dpi=150)


def _cpu(epoch: Epoch) -> float:
    return epoch.cpu_seconds


def _wall(epoch: Epoch) -> float:
    return epoch.seconds


def _table(summary: Mapping[str, Any]) -> Table:
    table = Table(title=f"{summary['network']}, width {summary['width']}, {summary['epochs']} epochs")
    for heading in ("", "accuracy (%)", "test loss", "training loss", "cpu (s)"):
        table.add_column(heading, justify="right" if heading else "left")
    for system, outcome in summary["systems"].items():
        numbers = ("test_accuracy", "test_loss", "train_loss", "cpu_seconds")
        cells = (_cell(outcome[name], digits) for name, digits in zip(numbers, (2, 3, 3, 0), strict=True))
        table.add_row(LABELS[system], *cells)
    return table


def _cell(spread: Mapping[str, Any], digits: int) -> str:
    if spread["mean"] is None:
        return "diverged"
    deviation = "" if spread["deviation"] is None else f" ± {spread['deviation']:.{digits}f}"
    return f"{spread['mean']:.{digits}f}{deviation}"


if __name__ == "__main__":
    main()
