"""``python -m experiments.page``: rewrite the tables of the pages docs/results*.md from logs of runs.

It replaces what stands between ``<!-- NAME: PART -->`` and ``<!-- end -->``, and leaves the rest of the page alone.
NAME is a recipe or a visit (``gpu-visit``, ``core-visit``, ``deep-visit``), whose log is docs/results/NAME.jsonl, or
``visits``, all of these together. PART is one of :data:`PARTS`, or one of the recipe's comparisons; for a visit it is a
part of :mod:`experiments.visits.report`, and for all of them one of :data:`ALL_VISITS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from matplotlib.figure import Figure

from experiments.reports import tables
from experiments.reports.plots import experiment_figure
from experiments.running.recipe_files import Experiment, read_recipe, recipe_names
from experiments.running.results import CellResult, collect_results
from experiments.visits import glance, glance_figure
from experiments.visits import report as visit_report
from experiments.visits.overview import overview
from experiments.visits.scales import NAMES
from experiments.visits.visit_log import VisitLog
from sgdph_fx.report.files import replacing, write_text

__all__ = ["PARTS", "main", "pages", "render"]

VISITS = {name: scale for scale, name in NAMES.items()}
TOGETHER = "visits"
DOCS = Path(__file__).parents[1] / "docs"


def _printed(experiment: Experiment, results: Sequence[CellResult]) -> str:
    return tables.printed_differences(experiment, "sgd-ph", "sgdm")


PARTS: dict[str, Callable[[Experiment, Sequence[CellResult]], str]] = {
    "accuracy": tables.scores,
    "cost": tables.cost,
    "grid": tables.grid,
    "printed differences": _printed,
}

ALL_VISITS: dict[str, Callable[[Path], str]] = {
    "table": glance.table,
    "picture": glance_figure.picture,
}

BLOCK = re.compile(r"<!-- (?P<name>[\w-]+): (?P<part>[^>]+?) -->\n(?:.*?\n)??<!-- end -->", re.DOTALL)


def pages(docs: Path) -> list[Path]:
    """List the pages whose tables come from logs."""
    return sorted(docs.glob("results*.md"))


def render(page: str, logs: Path) -> str:
    """Rewrite every marked block of a page.

    Args:
        page: Its text.
        logs: The folder of the logs, ``NAME.jsonl``.

    Raises:
        KeyError: if a block asks for a part that does not exist.
    """

    def block(found: re.Match[str]) -> str:
        file = logs / f"{found['name']}.jsonl"
        if found["name"] == TOGETHER:
            content = ALL_VISITS[found["part"]](logs)
        elif found["name"] in VISITS:
            content = visit_report.part(found["part"], VisitLog(file, VISITS[found["name"]]))
        else:
            experiment = read_recipe(found["name"])
            content = _part(found["part"], experiment, collect_results(experiment, file))
        return f"<!-- {found['name']}: {found['part']} -->\n\n{content}\n\n<!-- end -->"

    return BLOCK.sub(block, page)


def _part(part: str, experiment: Experiment, results: Sequence[CellResult]) -> str:
    if part in experiment.comparisons:
        return tables.differences(experiment, results, experiment.comparisons[part])
    return PARTS[part](experiment, results)


def _figure(recipe: str, logs: Path) -> Figure:
    if recipe == TOGETHER:
        return glance_figure.figure(logs)
    log = logs / f"{recipe}.jsonl"
    if recipe in VISITS:
        draw = visit_report.figure if VISITS[recipe] == "full" else overview
        return draw(VisitLog(log, VISITS[recipe]))
    experiment = read_recipe(recipe)
    return experiment_figure(experiment, collect_results(experiment, log), ["train_accuracy"])


@click.command(help="Rewrite the tables and plots of the pages of results from the logs in docs/results.")
@click.option(
    "--recipe", type=click.Choice([*recipe_names(), *VISITS, TOGETHER]), default="cpu", show_default=True
)
@click.option(
    "--log",
    type=click.Path(path_type=Path, exists=True),
    help="A log to keep as docs/results/RECIPE.jsonl first.  [default: the one that is there]",
)
@click.option("--docs", type=click.Path(path_type=Path, exists=True), default=DOCS, hidden=True)
def main(recipe: str, log: Path | None, docs: Path) -> None:
    """Rewrite the pages in place."""
    logs, images = docs / "results", docs / "images"
    if log is not None and recipe == TOGETHER:
        raise click.UsageError(f"--log: {TOGETHER} has no log of its own; name the visit whose log this is.")
    if log is not None:
        logs.mkdir(exist_ok=True)
        write_text(logs / f"{recipe}.jsonl", log.read_text(encoding="utf-8"))
    for page in pages(docs):
        write_text(page, render(page.read_text(encoding="utf-8"), logs))
    images.mkdir(exist_ok=True)
    drawn = [recipe, TOGETHER] if recipe in VISITS else [recipe]
    for name in drawn:
        with replacing(images / f"results-{name}.png") as part:
            _figure(name, logs).savefig(part, dpi=100)
    written = " and ".join(f"images/results-{name}.png" for name in drawn)
    click.echo(f"Wrote the {len(pages(docs))} pages of results in {docs}, and {written}.")


if __name__ == "__main__":
    main()
