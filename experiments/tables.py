"""Outcomes → Markdown: accuracy beside the paper's, cost as ratios, what was tuned, differences with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean, stdev

from experiments.intervals import Difference, paired, unpaired
from experiments.outcomes import Outcome
from experiments.recipe_files import Experiment

__all__ = ["accuracy", "cost", "differences", "grid", "markdown", "printed_differences", "text"]

NOTHING = "–"


def text(experiment: Experiment, outcomes: Sequence[Outcome]) -> str:
    """All there is to say of one recipe file, as Markdown."""
    parts = [
        f"# {experiment.title}",
        f"{experiment.source[0].upper()}{experiment.source[1:]}.",
        "\n".join(f"- {note}" for note in experiment.notes),
        "Test accuracy after the last epoch in percent, mean ± standard deviation over seeds:",
        accuracy(experiment, outcomes),
    ]
    if any(outcome.runs for outcome in outcomes):
        parts += ["Cost, as ratios to the first column of the row:", cost(experiment, outcomes)]
    if any(outcome.trials for outcome in outcomes):
        parts += ["Accuracy on held-out images in percent, the choice in bold:", grid(experiment, outcomes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def accuracy(experiment: Experiment, outcomes: Sequence[Outcome]) -> str:
    """Rows of networks, columns of systems; the paper's numbers in a row of their own where it has any."""
    of = {(outcome.cell.row, outcome.cell.column): outcome for outcome in outcomes}
    lines = []
    for row, label in experiment.rows.items():
        cells = [of[row, column] for column in experiment.columns]
        if any(outcome.cell.paper for outcome in cells):
            lines.append([f"{label}, paper", *(_printed(outcome.cell.paper) for outcome in cells)])
        lines.append([f"{label}, here", *(_spread(outcome) for outcome in cells)])
    return markdown(["", *experiment.columns.values()], lines)


def cost(experiment: Experiment, outcomes: Sequence[Outcome]) -> str:
    """Time and peak memory as ratios to the row's first column; the share of time that went into data.

    Time is the processor's on a CPU and the wall's on an accelerator; memory is measured on the latter.
    """
    lines = []
    for row, label in experiment.rows.items():
        run = [outcome for outcome in outcomes if outcome.cell.row == row and outcome.runs]
        for outcome in run:
            cells = (
                f"{outcome.seconds(processor=_on_cpu(outcome)):.2f} s",
                _ratio(outcome, run[0], lambda o: o.seconds(processor=_on_cpu(o))),
                _ratio(outcome, run[0], _peak),
                f"{100 * fmean(outcome.last(lambda e: e.data_seconds / e.seconds)):.1f}%",
            )
            lines.append([label, experiment.columns[outcome.cell.column], *cells])
    heads = ["", "", "time of an epoch", "time, ratio", "peak memory, ratio", "share of time in data"]
    return markdown(heads, lines)


def grid(experiment: Experiment, outcomes: Sequence[Outcome]) -> str:
    """Every trial of every system, so that the effort can be seen to be equal."""
    lines = []
    for outcome in outcomes:
        if not outcome.trials or outcome.cell.tuned_as:
            continue
        label = f"{experiment.rows[outcome.cell.row]}, {experiment.columns[outcome.cell.column]}"
        lines.append([label, *(_trial(outcome, k) for k in range(len(outcome.trials)))])
    points = max((len(line) for line in lines), default=1) - 1
    return markdown(["", *(f"point {k + 1}" for k in range(points))], lines)


def differences(experiment: Experiment, outcomes: Sequence[Outcome], pairs: Iterable[tuple[str, str]]) -> str:
    """First minus second, paired by seed, with the 95% interval of Student's t."""
    of = {(outcome.cell.row, outcome.cell.column): outcome for outcome in outcomes}
    lines = []
    for first, second in pairs:
        for row, label in experiment.rows.items():
            both = list(zip(of[row, first].accuracies, of[row, second].accuracies, strict=False))
            if both:
                difference = paired([a for a, _ in both], [b for _, b in both])
                name = f"{experiment.columns[first]} − {experiment.columns[second]}"
                lines.append([label, name, *_difference(difference)])
    heads = ["", "", "difference (points)", "95% interval", "seeds", "holds zero"]
    return markdown(heads, lines)


def printed_differences(experiment: Experiment, first: str, second: str) -> str:
    """What the paper's own means and deviations say of a difference, and which system is its best."""
    lines = []
    for row, label in experiment.rows.items():
        paper = {column: experiment.cell(row, column).paper for column in experiment.columns}
        difference = unpaired(paper[first], paper[second], experiment.seeds)
        best = max(paper, key=lambda column: paper[column][0])
        mean, interval, _, zero = _difference(difference)
        lines.append([label, mean, interval, zero, experiment.columns[best]])
    name = f"{experiment.columns[first]} − {experiment.columns[second]}"
    return markdown(["", name, "95% interval", "holds zero", "best of all"], lines)


def markdown(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table; short lines are filled up."""
    filled = [[*line, *[""] * (len(heads) - len(line))] for line in lines]
    rows = [heads, ["---"] * len(heads), *filled]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _printed(paper: tuple[float, ...]) -> str:
    if not paper:
        return NOTHING
    return f"{paper[0]:.2f}" if len(paper) == 1 else f"{paper[0]:.2f} ± {paper[1]:.2f}"


def _spread(outcome: Outcome) -> str:
    if not outcome.runs:
        return NOTHING
    if outcome.diverged:
        return f"{outcome.diverged} of {len(outcome.runs)} diverged"
    values = outcome.accuracies
    deviation = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{fmean(values):.2f}{deviation} ({len(values)})"


def _trial(outcome: Outcome, k: int) -> str:
    run = outcome.trials[k]
    if not run.complete:
        return NOTHING
    last, recipe = run.epochs[-1], run.recipe
    result = "diverged" if last.diverged else f"{last.test_accuracy:.2f}"
    chosen = outcome.recipe
    if chosen is not None and (chosen.lr, chosen.weight_decay) == (recipe.lr, recipe.weight_decay):
        result = f"**{result}**"
    return f"lr {recipe.lr:g}, wd {recipe.weight_decay:g}: {result}"


def _difference(difference: Difference) -> tuple[str, str, str, str]:
    low, high = difference.mean - difference.half_width, difference.mean + difference.half_width
    interval = f"{low:+.2f} to {high:+.2f}" if math.isfinite(difference.half_width) else "none from one seed"
    return (
        f"{difference.mean:+.2f}",
        interval,
        str(difference.seeds),
        "yes" if difference.holds_zero else "no",
    )


def _on_cpu(outcome: Outcome) -> bool:
    return math.isnan(outcome.runs[0].epochs[-1].peak_bytes)


def _peak(outcome: Outcome) -> float:
    return max(epoch.peak_bytes for run in outcome.runs for epoch in run.epochs)


def _ratio(outcome: Outcome, first: Outcome, of: Callable[[Outcome], float]) -> str:
    ratio = of(outcome) / of(first)
    return f"{ratio:.2f}" if math.isfinite(ratio) else NOTHING
