"""``python -m experiments.page``: write the tables of docs/results.md anew from logs of runs.

What stands between ``<!-- NAME: PART -->`` and ``<!-- end -->`` is replaced; all else on the page is left.
NAME is a recipe file, PART one of :data:`PARTS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import click

from experiments import tables
from experiments.outcomes import Outcome, gather
from experiments.plots import curves
from experiments.recipe_files import Experiment, read
from sgdph_fx.report.files import replacing, write_text

__all__ = ["PARTS", "main", "render"]

DOCS = Path(__file__).parents[1] / "docs"

AGAINST_SGDM = (
    ("sgd-ph", "sgdm"),
    ("sgd-ph-rademacher", "sgdm"),
    ("sgd-ph-rademacher", "sgd-ph"),
    ("sgd-ph-rademacher-same", "sgdm"),
    ("sgd-ph-rademacher-same", "sgd-ph"),
    ("sgd-ph", "sgdm-wn"),
)
AT_EQUAL_TIME = (
    ("sgd-ph", "sgdm-longer"),
    ("sgd-ph-rademacher", "sgdm-longer"),
    ("sgd-ph-rademacher-same", "sgdm-longer"),
)


def _printed(experiment: Experiment, outcomes: Sequence[Outcome]) -> str:
    return tables.printed_differences(experiment, "sgd-ph", "sgdm")


PARTS: dict[str, Callable[[Experiment, Sequence[Outcome]], str]] = {
    "accuracy": tables.accuracy,
    "cost": tables.cost,
    "grid": tables.grid,
    "differences": partial(tables.differences, pairs=AGAINST_SGDM),
    "differences at equal time": partial(tables.differences, pairs=AT_EQUAL_TIME),
    "printed differences": _printed,
}

BLOCK = re.compile(r"<!-- (?P<name>[\w-]+): (?P<part>[^>]+?) -->\n(?:.*?\n)??<!-- end -->", re.DOTALL)


def render(page: str, log: Path) -> str:
    """The page with every marked block written anew.

    Args:
        page: Its text.
        log: The log that all blocks are about.

    Raises:
        KeyError: if a block asks for a part that there is not.
    """

    def block(found: re.Match[str]) -> str:
        experiment = read(found["name"])
        content = PARTS[found["part"]](experiment, gather(experiment, log))
        return f"<!-- {found['name']}: {found['part']} -->\n\n{content}\n\n<!-- end -->"

    return BLOCK.sub(block, page)


@click.command(help="Write the tables and the plot of docs/results.md anew from the log of the recipe cpu.")
@click.option(
    "--log",
    type=click.Path(path_type=Path, exists=True),
    default=DOCS / "results" / "cpu.jsonl",
    show_default="docs/results/cpu.jsonl, which another log replaces",
)
@click.option("--docs", type=click.Path(path_type=Path, exists=True), default=DOCS, hidden=True)
def main(log: Path, docs: Path) -> None:
    """Rewrite the page in place, and keep the log beside it."""
    page = docs / "results.md"
    kept = docs / "results" / "cpu.jsonl"
    if log.resolve() != kept.resolve():
        kept.parent.mkdir(exist_ok=True)
        write_text(kept, log.read_text(encoding="utf-8"))
    write_text(page, render(page.read_text(encoding="utf-8"), log))
    experiment = read("cpu")
    fig = curves(experiment, gather(experiment, log), ["train_accuracy"])
    (docs / "images").mkdir(exist_ok=True)
    with replacing(docs / "images" / "results-cpu.png") as part:
        fig.savefig(part, dpi=100)
    click.echo(f"Written: {page} and images/results-cpu.png.")


if __name__ == "__main__":
    main()
