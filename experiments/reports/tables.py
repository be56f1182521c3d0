"""Results as Markdown: scores beside the paper's, cost as ratios, what was tuned, differences with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, stdev

from experiments.reports.intervals import Difference, paired, unpaired
from experiments.running.recipe_files import Experiment
from experiments.running.results import CellResult

__all__ = ["cost", "differences", "grid", "markdown", "printed_differences", "report", "scores"]

NOTHING = "–"
SHORT_NAMES = {"weight_decay": "wd", "second_order_lr": "τ_SO"}


def report(experiment: Experiment, results: Sequence[CellResult]) -> str:
    """Write everything about one recipe, as Markdown.

    Args:
        experiment: The recipe.
        results: One result for each of its cells.
    """
    score = f"{experiment.score[0].upper()}{experiment.score[1:]}"
    parts = [
        f"# {experiment.title}",
        f"{experiment.source[0].upper()}{experiment.source[1:]}.",
        "\n".join(f"- {note}" for note in experiment.notes),
        f"{score} after the last epoch, mean ± standard deviation (number of seeds):",
        scores(experiment, results),
    ]
    for part, pairs in experiment.comparisons.items():
        title = f"{part[0].upper()}{part[1:]}, paired by seed, with 95% intervals of Student's t:"
        parts += [title, differences(experiment, results, pairs)]
    if any(result.runs for result in results):
        parts += ["Cost, as ratios to the first column of the row:", cost(experiment, results)]
    if any(result.trials for result in results):
        parts += [f"{score} on held-out data, the choice in bold:", grid(experiment, results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def scores(experiment: Experiment, results: Sequence[CellResult]) -> str:
    """Write a row for each network and a column for each method. The paper's numbers have rows of their own."""
    of = _by_cell(results)
    lines = []
    for row, label in experiment.rows.items():
        cells = [of[row, column] for column in experiment.columns]
        if any(result.cell.paper for result in cells):
            lines.append([f"{label}, paper", *(_printed(result.cell.paper) for result in cells)])
        lines.append([f"{label}, here", *(_spread(result) for result in cells)])
    return markdown(["", *experiment.columns.values()], lines)


def cost(experiment: Experiment, results: Sequence[CellResult]) -> str:
    """Write time and peak memory as ratios to the row's first column, and the share of time spent on data.

    Time is processor time on a CPU and wall time on an accelerator. Memory is measured on an accelerator only.
    """
    lines = []
    for row, label in experiment.rows.items():
        done = [result for result in results if result.cell.row == row and result.runs]
        for result in done:
            cells = (
                f"{result.seconds(processor=_on_cpu(result)):.2f} s",
                _ratio(result, done[0], lambda r: r.seconds(processor=_on_cpu(r))),
                _ratio(result, done[0], _peak),
                f"{100 * fmean(result.last(lambda e: e.data_seconds / e.seconds)):.1f}%",
            )
            lines.append([label, experiment.columns[result.cell.column], *cells])
    heads = ["", "", "time of an epoch", "time, ratio", "peak memory, ratio", "share of time on data"]
    return markdown(heads, lines)


def grid(experiment: Experiment, results: Sequence[CellResult]) -> str:
    """Write every trial of every method, so that you can see that the effort was equal."""
    lines = []
    for result in results:
        if not result.trials or result.cell.tuned_as:
            continue
        label = f"{experiment.rows[result.cell.row]}, {experiment.columns[result.cell.column]}"
        lines.append([label, *(_trial(result, k) for k in range(len(result.trials)))])
    points = max((len(line) for line in lines), default=1) - 1
    return markdown(["", *(f"point {k + 1}" for k in range(points))], lines)


def differences(
    experiment: Experiment, results: Sequence[CellResult], pairs: Iterable[tuple[str, str]]
) -> str:
    """Write the difference of each pair of columns, paired by seed, with its 95% interval."""
    of = _by_cell(results)
    lines = []
    for first, second in pairs:
        for row, label in experiment.rows.items():
            both = list(zip(of[row, first].scores, of[row, second].scores, strict=False))
            if both:
                difference = paired([a for a, _ in both], [b for _, b in both])
                name = f"{experiment.columns[first]} − {experiment.columns[second]}"
                lines.append([label, name, *_difference(difference)])
    unit = "points" if "percent" in experiment.score else experiment.score
    heads = ["", "", f"difference ({unit})", "95% interval", "seeds", "includes zero"]
    return markdown(heads, lines)


def printed_differences(experiment: Experiment, first: str, second: str) -> str:
    """Write the difference that the paper's means and deviations give, and which method it finds best."""
    lines = []
    for row, label in experiment.rows.items():
        paper = {column: experiment.cell(row, column).paper for column in experiment.columns}
        difference = unpaired(paper[first], paper[second], experiment.seeds)
        best = max(paper, key=lambda column: paper[column][0])
        mean, interval, _, zero = _difference(difference)
        lines.append([label, mean, interval, zero, experiment.columns[best]])
    name = f"{experiment.columns[first]} − {experiment.columns[second]}"
    return markdown(["", name, "95% interval", "includes zero", "best of all"], lines)


def markdown(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table. Short lines are filled up with empty cells."""
    filled = [[*line, *[""] * (len(heads) - len(line))] for line in lines]
    rows = [heads, ["---"] * len(heads), *filled]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _by_cell(results: Sequence[CellResult]) -> Mapping[tuple[str, str], CellResult]:
    return {(result.cell.row, result.cell.column): result for result in results}


def _printed(paper: tuple[float, ...]) -> str:
    if not paper:
        return NOTHING
    return f"{paper[0]:.2f}" if len(paper) == 1 else f"{paper[0]:.2f} ± {paper[1]:.2f}"


def _spread(result: CellResult) -> str:
    if not result.runs:
        return NOTHING
    if result.diverged:
        return f"{result.diverged} of {len(result.runs)} diverged"
    values = result.scores
    deviation = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{fmean(values):.2f}{deviation} ({len(values)})"


def _trial(result: CellResult, k: int) -> str:
    run = result.trials[k]
    if not run.complete:
        return NOTHING
    last, config = run.epochs[-1], run.config
    text = "diverged" if last.diverged else f"{last.test_accuracy:.2f}"
    chosen = result.config
    if chosen is not None and _settings(chosen) == _settings(config):
        text = f"**{text}**"
    point = {"lr": config.lr, "weight_decay": config.weight_decay, **_searched_options(result)[k]}
    named = ", ".join(f"{SHORT_NAMES.get(name, name)} {value:g}" for name, value in point.items())
    return f"{named}: {text}"


def _searched_options(result: CellResult) -> list[dict[str, float]]:
    """Give the options of each trial that are not the same in all trials."""
    options = [run.config.options for run in result.trials]
    names = [name for name in options[0] if len({str(each.get(name)) for each in options}) > 1]
    return [{name: each[name] for name in names} for each in options]


def _settings(config: object) -> tuple[object, ...]:
    return tuple(getattr(config, name) for name in ("lr", "weight_decay", "options"))


def _difference(difference: Difference) -> tuple[str, str, str, str]:
    low, high = difference.mean - difference.half_width, difference.mean + difference.half_width
    interval = f"{low:+.2f} to {high:+.2f}" if math.isfinite(difference.half_width) else "none from one seed"
    return (
        f"{difference.mean:+.2f}",
        interval,
        str(difference.seeds),
        "yes" if difference.includes_zero else "no",
    )


def _on_cpu(result: CellResult) -> bool:
    return math.isnan(result.runs[0].epochs[-1].peak_bytes)


def _peak(result: CellResult) -> float:
    return max(epoch.peak_bytes for run in result.runs for epoch in run.epochs)


def _ratio(result: CellResult, first: CellResult, of: Callable[[CellResult], float]) -> str:
    ratio = of(result) / of(first)
    return f"{ratio:.2f}" if math.isfinite(ratio) else NOTHING
