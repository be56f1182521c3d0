"""``python -m benchmarks.coverage``: measure the models that are not in the log yet, or render the log."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import click
from rich.console import Console

from benchmarks.coverage.render import page
from benchmarks.coverage.row import Log
from benchmarks.coverage.subprocesses import Limits, measured
from benchmarks.coverage.zoos import ZOOS, zoo
from experiments.progress import make_progress

__all__ = ["main"]


@click.command(help="Read, prepare and restore every model of the zoos, and log the results.")
@click.option("--zoo", "name", type=click.Choice([*ZOOS, "all"]), default="all", show_default=True)
@click.option("--only", default="*", show_default=True, help="Only models whose name matches this glob.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("runs/coverage.jsonl"), show_default=True
)
@click.option(
    "--oracle", type=click.IntRange(0), default=0, help="Convolutions of each model to test numerically."
)
@click.option("--seconds", type=float, default=900, show_default=True, help="Time limit for a model.")
@click.option("--gigabytes", type=float, default=12, show_default=True, help="Memory limit for a model.")
@click.option("--again", is_flag=True, help="Measure models with problems again.")
@click.option(
    "--render", type=click.Path(path_type=Path, exists=True), help="Write this log as a page instead."
)
def main(
    name: str,
    only: str,
    out: Path,
    oracle: int,
    seconds: float,
    gigabytes: float,
    again: bool,
    render: Path | None,
) -> None:
    """Measure the models that have no row in ``out``."""
    if render is not None:
        click.echo(page(list(Log(render).rows().values())), nl=False)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    log = Log(out)
    done = {key for key, row in log.rows().items() if not (again and row.problems)}
    asked = [
        (each, model)
        for each in (ZOOS if name == "all" else (name,))
        for model in zoo(each).names()
        if fnmatchcase(model, only)
    ]
    _measure([key for key in asked if key not in done], log, Limits(seconds, gigabytes), oracle)
    rows = [row for key, row in log.rows().items() if key in set(asked)]
    bad = sum(bool(row.problems) for row in rows)
    click.echo(f"{len(rows)} models in {out}, {len(rows) - bad} without a problem, {bad} with one.")


def _measure(todo: list[tuple[str, str]], log: Log, limits: Limits, oracle: int) -> None:
    with make_progress(Console()) as progress:
        bar = progress.add_task("", total=len(todo))
        for name, model in todo:
            progress.update(bar, description=f"{name} {model}")
            row = measured(name, model, limits, oracle)
            log.append(row)
            if row.problems:
                progress.console.print(
                    f"{name} {model}: {'; '.join(row.problems)}", markup=False, soft_wrap=True
                )
            progress.advance(bar)


if __name__ == "__main__":
    main()
