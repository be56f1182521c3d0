"""``python -m experiments RECIPE --data DIR``: the runs of one recipe, and a table of their results."""

from __future__ import annotations

import os
from pathlib import Path

import click
import torch
from rich.console import Console

from experiments.datasets.load import MissingDataError
from experiments.distributed import World
from experiments.reports.plots import experiment_figure
from experiments.reports.tables import report
from experiments.running.experiment_runner import ExperimentRunner, select_cells
from experiments.running.parallel import run_in_parallel
from experiments.running.recipe_files import SCALES, Experiment, read_recipe, recipe_names
from experiments.running.results import collect_results
from sgdph_fx.report.files import replacing, write_text

__all__ = ["main"]


@click.command(
    help="Train the runs of a recipe, and write its tables, beside the paper's numbers where there are any. "
    "Runs that the log in the folder of results holds are skipped, and an interrupted run resumes after its "
    "last epoch."
)
@click.argument("recipe", type=click.Choice(recipe_names()))
@click.option("--data", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
@click.option("--scale", type=click.Choice(list(SCALES)), default="full", show_default=True)
@click.option("--seeds", type=click.IntRange(1), help="Number of seeds, from 0.  [default: the recipe's]")
@click.option("--only", multiple=True, default=("*",), help="Cells to run, ROW/COLUMN, with wildcards.")
@click.option(
    "--jobs", type=click.IntRange(1), default=1, show_default=True, help="Runs at once, on one device."
)
@click.option("--device", help="[default: cuda if there is a GPU, else cpu]")
@click.option("--threads", type=click.IntRange(1), help="Processor threads of a run.  [default: torch's]")
@click.option(
    "--workers", type=click.IntRange(0), help="Processes that read image files.  [default: up to 8]"
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder of results.  [default: runs/SCALE]")
def main(
    recipe: str,
    data: Path,
    scale: str,
    seeds: int | None,
    only: tuple[str, ...],
    jobs: int,
    device: str | None,
    threads: int | None,
    workers: int | None,
    out: Path | None,
) -> None:
    """Run the selected cells, and rewrite the tables as results come in."""
    if threads is not None:
        torch.set_num_threads(threads)
    # Autotuned convolutions may differ between two starts, so a resumed run would not have the same bits.
    torch.backends.cudnn.deterministic = True
    experiment = read_recipe(recipe, scale)
    world, own_device = World.join(torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))
    if jobs > 1 and world.size > 1:
        raise click.UsageError("--jobs starts processes of its own, so it does not work under torchrun.")
    runner = ExperimentRunner(
        data=data,
        out=out or Path("runs") / scale,
        device=own_device,
        console=Console(stderr=True, quiet=not world.is_main),
        workers=min(8, os.cpu_count() or 1) if workers is None else workers,
        world=world,
    )
    try:
        _run(experiment, runner, only, seeds, jobs, threads)
    except (MissingDataError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    world.shut_down()
    if world.is_main:
        click.echo((runner.out / f"{experiment.name}.md").read_text(encoding="utf-8"))


def _run(
    experiment: Experiment,
    runner: ExperimentRunner,
    only: tuple[str, ...],
    seeds: int | None,
    jobs: int,
    threads: int | None,
) -> None:
    cells = select_cells(experiment, only)
    console, count = runner.console, seeds or experiment.seeds
    if jobs > 1:
        runner.out.mkdir(parents=True, exist_ok=True)
        run_in_parallel(
            experiment, cells, count, runner, jobs, threads,
            lambda run: console.print(f"{run.config.network} {run.config.method} seed {run.config.seed} is done."),
        )  # fmt: skip
        _write(experiment, runner.out, seeds)
        return
    for cell in cells:
        runner.run(experiment, cell, count)
        if runner.world.is_main:
            _write(experiment, runner.out, seeds)
        console.print(f"{cell.name} is done.")


def _write(experiment: Experiment, out: Path, seeds: int | None) -> None:
    results = collect_results(experiment, out / "epochs.jsonl", seeds)
    write_text(out / f"{experiment.name}.md", report(experiment, results))
    if experiment.curves:
        with replacing(out / f"{experiment.name}.png") as part:
            experiment_figure(experiment, results, experiment.curves).savefig(part, dpi=150)


if __name__ == "__main__":
    main()
