"""``python -m experiments RECIPE --data DIR``: the runs of one table or figure of the paper."""

from __future__ import annotations

import os
from pathlib import Path

import click
import torch
from rich.console import Console

from experiments.data import MissingDataError
from experiments.laboratory import Laboratory, chosen
from experiments.outcomes import gather
from experiments.plots import curves
from experiments.recipe_files import SCALES, Experiment, names, read
from experiments.tables import text
from experiments.team import Team
from sgdph_fx.report.files import replacing, write_text

__all__ = ["main"]


@click.command(
    help="Run the trainings of a table or figure of the paper, and set the results beside its own. "
    "What the log in the folder of results holds is not run again; a run that was killed goes on after its "
    "last epoch."
)
@click.argument("recipe", type=click.Choice(names()))
@click.option("--data", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
@click.option("--scale", type=click.Choice(list(SCALES)), default="full", show_default=True)
@click.option("--seeds", type=click.IntRange(1), help="Number of seeds, from 0.  [default: the recipe's]")
@click.option("--only", multiple=True, default=("*",), help="Cells to run, ROW/COLUMN, with wildcards.")
@click.option("--device", help="[default: cuda where there is one, else cpu]")
@click.option("--threads", type=click.IntRange(1), help="Processor threads.  [default: torch's]")
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
    device: str | None,
    threads: int | None,
    workers: int | None,
    out: Path | None,
) -> None:
    """Run the chosen cells; the table is written anew after each."""
    if threads is not None:
        torch.set_num_threads(threads)
    # Autotuned convolutions may differ between two starts, and a resumed run would not be the same to the bit.
    torch.backends.cudnn.deterministic = True
    experiment = read(recipe, scale)
    team, own_device = Team.join(torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))
    console = Console(stderr=True, quiet=not team.leads)
    laboratory = Laboratory(
        data=data,
        out=out or Path("runs") / scale,
        device=own_device,
        console=console,
        workers=min(8, os.cpu_count() or 1) if workers is None else workers,
        team=team,
    )
    try:
        for cell in chosen(experiment, only):
            laboratory.run(experiment, cell, seeds or experiment.seeds)
            if team.leads:
                _write(experiment, laboratory.out, seeds)
            console.print(f"{cell.name} is done.")
    except (MissingDataError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    team.leave()
    if team.leads:
        click.echo((laboratory.out / f"{experiment.name}.md").read_text(encoding="utf-8"))


def _write(experiment: Experiment, out: Path, seeds: int | None) -> None:
    outcomes = gather(experiment, out / "epochs.jsonl", seeds)
    write_text(out / f"{experiment.name}.md", text(experiment, outcomes))
    if experiment.curves:
        with replacing(out / f"{experiment.name}.png") as part:
            curves(experiment, outcomes, experiment.curves).savefig(part, dpi=150)


if __name__ == "__main__":
    main()
