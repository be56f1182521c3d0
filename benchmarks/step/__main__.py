"""``python -m benchmarks.step``: time a training step of each optimizer."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from pathlib import Path

import click
import torch
from rich.console import Console
from torch import Tensor

from benchmarks.step.candidates import Trainer, available
from benchmarks.step.measure import Cost, measure
from benchmarks.step.memory import peak_megabytes
from benchmarks.step.plot import figure
from benchmarks.step.table import Row, markdown
from benchmarks.step.workload import batch_of, trainer
from experiments.networks import NETWORKS
from experiments.progress import make_progress
from sgdph_fx.report.files import replacing, write_text

__all__ = ["main"]


@click.command(help="Time a training step of each optimizer, in turns, as ratios to SGD's.")
@click.option("--network", type=click.Choice([*NETWORKS]), default="resnet18", show_default=True)
@click.option("--width", type=click.IntRange(1), default=64, show_default=True)
@click.option(
    "--batch", "batches", type=click.IntRange(2), multiple=True, default=(32, 128), show_default=True
)
@click.option(
    "--sample",
    type=click.IntRange(1),
    default=1000,
    help="Refreshes of a cycle to time; all of them by default.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="How often to time each; the best counts.",
)
@click.option("--only", multiple=True, type=click.Choice(available()), help="Beside SGD; all by default.")
@click.option("--memory/--no-memory", default=True, show_default=True)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="One core and its processor time, or one GPU and wall time.",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/step.json"), show_default=True)
def main(
    network: str,
    width: int,
    batches: tuple[int, ...],
    sample: int,
    rounds: int,
    only: tuple[str, ...],
    memory: bool,
    device: str,
    out: Path,
) -> None:
    """Print a Markdown table, and write the numbers as JSON with a plot beside it."""
    if device == "cuda" and not torch.cuda.is_available():
        raise click.UsageError(
            "--device cuda: torch finds no GPU here (torch.cuda.is_available() is False); try --device cpu."
        )
    torch.set_num_threads(1)
    names = list(dict.fromkeys(["SGD", *(only or available())]))
    rows: list[Row] = []
    for batch in batches:
        trainers = {name: trainer(name, network, width, device) for name in names}
        costs = _costs(trainers, batch_of(batch, device), sample, rounds)
        peaks = {n: peak_megabytes(n, network, width, batch, device) for n in names} if memory else {}
        rows += [_row(name, batch, costs, peaks) for name in names]
    how = (
        f"{network}, width {width}, CIFAR form; torch {torch.__version__}, {_machine(device)}, best of {rounds} "
        f"rounds, with at most {sample} refreshes of a cycle."
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, json.dumps({"how": how, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    with replacing(out.with_suffix(".png")) as part:
        figure(rows, f"{network}: a step, as a multiple of SGD's").savefig(part, dpi=110)
    click.echo(markdown(rows, how), nl=False)


def _machine(device: str) -> str:
    if device == "cpu":
        return f"{platform.machine()}, one core, processor time"
    return f"CUDA {torch.version.cuda}, {torch.cuda.get_device_name()}, wall time, memory of the allocator"


def _costs(
    trainers: dict[str, Trainer], batch: tuple[Tensor, Tensor], sample: int, rounds: int
) -> dict[str, Cost]:
    turns = rounds * max(len(t.sampled_steps(sample)) for t in trainers.values())
    with make_progress(Console(stderr=True), f"batch {len(batch[0])}") as bar:
        task = bar.add_task("", total=turns)
        return measure(trainers, batch, sample=sample, rounds=rounds, done=lambda: bar.advance(task))


def _row(name: str, batch: int, costs: dict[str, Cost], peaks: dict[str, float]) -> Row:
    own, sgd = costs[name], costs["SGD"]
    return Row(
        optimizer=name,
        batch=batch,
        milliseconds=1e3 * own.seconds,
        time=own.seconds / sgd.seconds,
        arithmetic=own.flops / sgd.flops,
        megabytes=peaks.get(name),
        memory=peaks[name] / peaks["SGD"] if peaks else None,
    )


if __name__ == "__main__":
    main()
