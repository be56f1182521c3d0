"""The training of the quickstart page: SGD-PH beside SGD with momentum, on real images, on one CPU core.

``python -m experiments.quickstart --data DIR`` trains a narrow VGG-11 without normalization and a narrow ResNet-18
with batch norm. Each method starts from the same weights and sees the same batches. The command writes
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

from experiments.datasets.load import DATASETS, MissingDataError
from experiments.reports.plots import METHOD_LABELS, comparison_figure
from experiments.running.run_log import Run
from experiments.running.runner import Runner
from experiments.training.config import RunConfig
from experiments.training.metrics import EpochMetrics
from sgdph_fx.report.files import replacing, write_text

__all__ = ["COMPARISONS", "Comparison", "main", "summarize"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One network, and the methods that train it.

    Args:
        network: A key of :data:`experiments.networks.NETWORKS`.
        share: Its width as a share of the command's ``--width``.
        settings: Method → learning rate and weight decay, found by :mod:`experiments.tune`. The page
            docs/quickstart.md shows the grid.
    """

    network: str
    share: float
    settings: Mapping[str, tuple[float, float]]

    def configs(self, width: int, epochs: int, seeds: Sequence[int]) -> list[RunConfig]:
        """Make a run for each seed and method, those of one seed next to each other."""
        narrow = max(1, int(width * self.share))
        return [
            RunConfig(self.network, narrow, method, lr, weight_decay, epochs, seed=seed)
            for seed in seeds
            for method, (lr, weight_decay) in self.settings.items()
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
    """Run every comparison and write the results. Runs that the log in ``out`` holds are skipped."""
    torch.set_num_threads(threads)
    try:
        runner = Runner.in_memory(dataset, data, train_size, False, out, torch.device(device))
    except (MissingDataError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    console = Console()
    summaries = []
    for comparison in COMPARISONS:
        configs = comparison.configs(width, epochs, range(seeds))
        runs = _by_method(runner.run(configs, console))
        summaries.append(summarize(runs))
        _plot(runs, f"{dataset}, {train_size:,} training images", device, out)
        console.print(_table(summaries[-1]))
    setting = {**runner.data, "threads": threads, "device": device, "torch": torch.__version__}
    results = {**setting, "machine": platform.machine(), "comparisons": summaries}
    write_text(out / "results.json", json.dumps(results, indent=2) + "\n")
    console.print(f"Wrote results.json, epochs.jsonl and the curves to {out}.")


def summarize(runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """Summarize one comparison as JSON data, with accuracies and losses of the last epoch.

    Args:
        runs: Method → its runs, one for each seed.
    """
    first = next(iter(runs.values()))[0].config
    return {
        "network": first.network,
        "width": first.width,
        "epochs": first.epochs,
        "batch_size": first.batch_size,
        "methods": {
            method: {
                "lr": own[0].config.lr,
                "weight_decay": own[0].config.weight_decay,
                "seeds": [run.config.seed for run in own],
                "diverged": sum(run.epochs[-1].diverged for run in own),
                **{
                    name: _spread([getattr(run.epochs[-1], name) for run in own])
                    for name in ("test_accuracy", "test_loss", "train_loss", "cpu_seconds", "seconds")
                },
            }
            for method, own in runs.items()
        },
    }


def _spread(values: Sequence[float]) -> dict[str, Any]:
    finite = [value for value in values if value == value]
    deviation = stdev(finite) if len(finite) > 1 else None
    return {"mean": fmean(finite) if finite else None, "deviation": deviation, "values": finite}


def _by_method(runs: Sequence[Run]) -> dict[str, list[Run]]:
    methods: dict[str, list[Run]] = {}
    for run in runs:
        methods.setdefault(run.config.method, []).append(run)
    return methods


def _plot(runs: Mapping[str, Sequence[Run]], title: str, device: str, out: Path) -> None:
    config = next(iter(runs.values()))[0].config
    # Processor time leaves out what other programs take. On an accelerator only wall time counts.
    seconds, label = (_cpu, "processor time (s)") if device == "cpu" else (_wall, "time (s)")
    heading = f"{config.network}, width {config.width}: {title}"
    with replacing(out / f"{config.network}.png") as part:
        comparison_figure(runs, heading, seconds, label).savefig(part, dpi=150)


def _cpu(epoch: EpochMetrics) -> float:
    return epoch.cpu_seconds


def _wall(epoch: EpochMetrics) -> float:
    return epoch.seconds


def _table(summary: Mapping[str, Any]) -> Table:
    table = Table(title=f"{summary['network']}, width {summary['width']}, {summary['epochs']} epochs")
    for heading in ("", "accuracy (%)", "test loss", "training loss", "cpu (s)"):
        table.add_column(heading, justify="right" if heading else "left")
    for method, found in summary["methods"].items():
        numbers = ("test_accuracy", "test_loss", "train_loss", "cpu_seconds")
        cells = (_cell(found[name], digits) for name, digits in zip(numbers, (2, 3, 3, 0), strict=True))
        table.add_row(METHOD_LABELS[method], *cells)
    return table


def _cell(spread: Mapping[str, Any], digits: int) -> str:
    if spread["mean"] is None:
        return "diverged"
    deviation = "" if spread["deviation"] is None else f" ± {spread['deviation']:.{digits}f}"
    return f"{spread['mean']:.{digits}f}{deviation}"


if __name__ == "__main__":
    main()
