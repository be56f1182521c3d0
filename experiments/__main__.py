"""``python -m experiments RECIPE --data DIR``: the runs of one table or figure of the paper."""

from __future__ import annotations

from pathlib import Path

import click
import torch
from rich.console import Console

from experiments.data import MissingDataError
from experiments.laboratory import Laboratory, chosen
from experiments.recipe_files import SCALES, names, read

__all__ = ["main"]


@click.command(
    help="Run the trainings of a table or figure of the paper, and set the results beside its own."
)
@click.argument("recipe", type=click.Choice(names()))
@click.option("--data", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
@click.option("--scale", type=click.Choice(list(SCALES)), default="full", show_default=True)
@click.option("--seeds", type=click.IntRange(1), help="Number of seeds, from 0.  [default: as the paper]")
@click.option("--only", multiple=True, default=("*",), help="Cells to run, ROW/COLUMN, with wildcards.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--threads", type=click.IntRange(1), help="Processor threads.  [default: torch's]")
@click.option("--out", type=click.Path(path_type=Path), help="[default: runs/SCALE]")
def main(
    recipe: str,
    data: Path,
    scale: str,
    seeds: int | None,
    only: tuple[str, ...],
    device: str,
    threads: int | None,
    out: Path | None,
) -> None:
    """Run what the log in ``out`` does not hold; a run that was killed goes on after its last epoch."""
    if threads is not None:
        torch.set_num_threads(threads)
    experiment = read(recipe, scale)
    console = Console(stderr=True)
    laboratory = Laboratory(data, out or Path("runs") / scale, torch.device(device), console)
    try:
        for cell in chosen(experiment, only):
            runs = laboratory.run(experiment, cell, seeds or experiment.seeds)
            console.print(cell.name, [round(run.epochs[-1].test_accuracy, 2) for run in runs])
    except (MissingDataError, ValueError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
