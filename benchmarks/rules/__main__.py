"""The command: measure what is not measured yet, or render what is."""

from __future__ import annotations

import gc
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import click
import torch

from benchmarks.coverage.zoos import ZOOS, zoo
from benchmarks.rules.page import page
from benchmarks.rules.record import read, record_of, written

__all__ = ["main"]


@click.command(
    help="Find the operations above second-order parameters of real models, and which have a rule."
)
@click.option("--zoo", "name", type=click.Choice([*ZOOS, "all"]), default="all", show_default=True)
@click.option("--only", default="*", show_default=True, help="Only models whose name fits this glob.")
@click.option(
    "--every", type=click.IntRange(1), default=1, show_default=True, help="Every n-th model of each zoo."
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/rules.jsonl"), show_default=True)
@click.option(
    "--render", type=click.Path(path_type=Path, exists=True), help="Write this log as a page instead."
)
def main(name: str, only: str, every: int, out: Path, render: Path | None) -> None:
    """Measure; models that ``out`` has a line for are not measured again."""
    if render is not None:
        click.echo(page(list(read(render))), nl=False)
        return
    torch.set_num_threads(1)
    out.parent.mkdir(parents=True, exist_ok=True)
    done = {(record.zoo, record.model) for record in read(out)}
    for each in ZOOS if name == "all" else (name,):
        origin = zoo(each)
        for model in origin.names()[::every]:
            if (each, model) in done or not fnmatchcase(model, only):
                continue
            record = record_of(each, model, partial(origin.sample, model))
            with out.open("a", encoding="utf-8") as log:
                log.write(written(record) + "\n")
            gc.collect()
            click.echo(f"{each} {model}: {record.failed or f'{len(record.operations)} kinds of operations'}")


if __name__ == "__main__":
    main()
