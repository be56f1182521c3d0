"""Tables and the picture of a visit, from its log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.alignment import Alignment, medians
from experiments.reports.intervals import Difference
from experiments.reports.plots import COLOURS
from experiments.reports.tables import markdown
from experiments.visits.contenders import CONTENDERS, TRIALS
from experiments.visits.jobs import ALIGNED, Job, Row, best_trial, is_sound
from experiments.visits.overview import curvature_table
from experiments.visits.questions import QUESTIONS
from experiments.visits.scales import NAMES
from experiments.visits.units import digits_of, shown_interval, unit_of
from experiments.visits.visit_log import VisitLog

__all__ = ["PARTS", "figure", "part"]

NOTHING_YET = "No run of these is logged yet."


def scores(log: VisitLog) -> str:
    """Write every contender of every task: settings, score, difference from the reference, time of a step."""
    lines = []
    for task in log.tasks:
        for key in log.contenders(task):
            values = [*log.scores(task, key).values()]
            digits = digits_of(log.tasks[task])
            best = best_trial(Job(task, key, "seed"), log.rows)
            settings = ", ".join(f"{name} {value:.3g}" for name, value in (best or {}).items())
            spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
            own = log.milliseconds(task, key)
            lines.append(
                [
                    log.tasks[task].label,
                    CONTENDERS[key].label,
                    f"{fmean(values):.{digits}f}{spread} ({_seeds(log, task, key)})",
                    shown_interval(log.difference(task, key, log.tasks[task].reference), digits)
                    if key != log.tasks[task].reference
                    else "",
                    "–" if own is None else f"{own:.2f}",
                    settings.replace("_", " "),
                ]
            )
    return markdown(
        ["", "", "score (seeds)", "difference from the reference", "ms a step", "chosen settings"], lines
    )


def answers(log: VisitLog) -> str:
    """Write the answer to each question, with its interval, for each task that has both contenders."""
    lines = []
    for question, (first, second) in QUESTIONS.items():
        for task in log.tasks:
            difference = log.difference(task, first, second)
            if difference is not None:
                digits = digits_of(log.tasks[task])
                verdict = _verdict(difference)
                lines.append([question, log.tasks[task].label, shown_interval(difference, digits), verdict])
    return markdown(["question", "task", "difference (95% interval)", "answer"], lines)


def grid(log: VisitLog) -> str:
    """Write all trials, as means over their seeds, so that you can see that the effort was equal."""
    lines = []
    for task in log.tasks:
        for key in log.everyone(task):
            trials = [row for row in log.rows if Job.of(row) == Job(task, key, "trial", row["number"])]
            points = sorted({row["number"] % TRIALS for row in trials})
            cells = [
                _trial([row for row in trials if row["number"] % TRIALS == point], digits_of(log.tasks[task]))
                for point in points
            ]
            if cells:
                lines.append([log.tasks[task].label, CONTENDERS[key].label, *cells])
    most = max((len(line) for line in lines), default=2) - 2
    return markdown(["", "", *(f"trial {number + 1}" for number in range(most))], lines)


def alignment(log: VisitLog) -> str:
    """Write the medians of the cosine of H·1 and −g by kind of parameter."""
    parts = []
    for task in ALIGNED:
        rows = [row for row in log.rows if Job.of(row) == Job(task, "sgd-ph", "alignment")]
        for row in rows:
            parts += [
                f"{log.tasks[task].label.split(',')[0]}, width 64:",
                medians([Alignment(**each) for each in row["alignment"]]),
            ]
    return "\n\n".join(parts)


def picture(log: VisitLog) -> str:
    """Show the figure that :func:`figure` draws."""
    if not any(log.contenders(task) for task in log.tasks):
        return ""
    name = NAMES[log.scale]
    return f"![Differences from the reference, with 95% intervals](images/results-{name}.png)"


def conditions(log: VisitLog) -> str:
    """Say on what the runs were made, and how many there are."""
    machines = sorted({f"{row['device']}, torch {row['torch']}" for row in log.rows})
    counts = {phase: sum(row["phase"] == phase for row in log.rows) for phase in ("trial", "seed")}
    if not machines:
        return ""
    return (
        f"{counts['trial']} trials and {counts['seed']} runs that count, on one {' and one '.join(machines)}."
    )


PARTS: Mapping[str, Callable[[VisitLog], str]] = {
    "conditions": conditions,
    "picture": picture,
    "scores": scores,
    "answers": answers,
    "curvature": curvature_table,
    "grid": grid,
    "alignment": alignment,
}
"""Parts of the page Results that a visit's log fills in."""


def part(name: str, log: VisitLog) -> str:
    """Give a part of the page, or say that there is nothing to show yet.

    Args:
        name: A key of :data:`PARTS`.
        log: The visit's log.
    """
    content = PARTS[name](log)
    return content if content and content.count("\n") != 1 else NOTHING_YET


def _seeds(log: VisitLog, task: str, key: str) -> str:
    failed = log.failures(task, key)
    return f"{len(log.scores(task, key))}" + (f", and {failed} diverged" if failed else "")


def _verdict(difference: Difference) -> str:
    if difference.seeds == 1 or difference.includes_zero:
        return "not told apart"
    return "better" if difference.mean > 0 else "worse"


def _trial(rows: Sequence[Row], digits: int) -> str:
    if not all(map(is_sound, rows)):
        return "diverged"
    return f"{fmean(row['score'] for row in rows):.{digits}f}"


def figure(log: VisitLog) -> Figure:
    """Draw each task's contenders by their difference from the reference, with 95% intervals."""
    tasks = [task for task in log.tasks if log.contenders(task)]
    drawn = Figure(
        figsize=(7.5, 1.2 + 0.32 * sum(len(log.contenders(t)) + 2 for t in tasks)), layout="constrained"
    )
    heights = [len(log.contenders(task)) + 1 for task in tasks]
    grid = drawn.subplots(max(1, len(tasks)), 1, squeeze=False, gridspec_kw={"height_ratios": heights or [1]})
    axes: Sequence[Axes] = list(grid[:, 0])
    for axis, task in zip(axes, tasks, strict=False):
        _forest(axis, log, task)
    return drawn


def _forest(axis: Axes, log: VisitLog, task: str) -> None:
    reference = log.tasks[task].reference
    for place, key in enumerate(reversed(log.contenders(task))):
        difference = log.difference(task, key, reference)
        if difference is None:
            continue
        half = difference.half_width if difference.seeds > 1 else 0.0
        colour = (
            COLOURS[6]
            if key == reference or difference.includes_zero
            else COLOURS[2 if difference.mean > 0 else 1]
        )
        axis.errorbar(
            difference.mean, place, xerr=0 if key == reference else half, fmt="o", color=colour, capsize=3
        )
    axis.set_yticks(
        range(len(log.contenders(task))), [CONTENDERS[key].label for key in reversed(log.contenders(task))]
    )
    axis.axvline(0, color="grey", linewidth=0.8)
    unit = unit_of(log.tasks[task])
    axis.set_xlabel(f"{unit} than {CONTENDERS[reference].label}")
    axis.set_title(log.tasks[task].label, loc="left")
    axis.grid(axis="x", alpha=0.3)
