"""Rule 3 as a table, and the picture of a visit, from logs whose numbers are made here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from experiments import page
from experiments.reports.intervals import QUANTILES
from experiments.visits.overview import ADDED_LATER, CURVATURE_PAIRS, FOR_TWENTY, curvature_table, overview
from experiments.visits.visit_log import VisitLog
from tests.experiments.test_intervals import outside
from tests.experiments.test_visit_report import cells, row

STEADY = (0.0, 0.0, 0.0, 0.0, 0.0)
# Deviation sqrt(2.5 / 4), so the half width of five seeds is 2.776 · sqrt(0.625) / sqrt(5) = 0.9815.
SPREAD = (-1.0, -0.5, 0.0, 0.5, 1.0)


def _visit(folder: Path, scores: dict[tuple[str, str], tuple[float, ...]]) -> VisitLog:
    rows = [
        {**row(contender, "seed", seed, score), "task": task, "scale": "core"}
        for (task, contender), own in scores.items()
        for seed, score in enumerate(own)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    return VisitLog(folder / "log.jsonl", "core")


def _moved(by: float, values: tuple[float, ...] = SPREAD) -> tuple[float, ...]:
    return tuple(value + by for value in values)


@pytest.fixture
def log(tmp_path: Path) -> VisitLog:
    scores = {
        **{("vgg11", key): STEADY for key in ("gradient", "gradient-all", "sgdm")},
        # Digits are not negative, but for runs that diverged.
        **{("burgers", key): _moved(2.0, STEADY) for key in ("gradient", "gradient-all", "sgdm")},
        ("vgg11", "sgd-ph"): _moved(3.0),
        ("burgers", "sgd-ph"): _moved(2.5),
        ("vgg11", "gauss-newton"): _moved(1.0),
        ("burgers", "gauss-newton"): _moved(1.0),
        ("vgg11", "gauss-newton-all"): _moved(0.8),
        ("vgg11", "sgd-ph-rademacher"): (2.6, 3.0, 3.4),
    }
    return _visit(tmp_path, scores)


def test_rule_3_wants_a_task_that_is_better_and_none_that_is_worse(log: VisitLog) -> None:
    lines = {line[0]: line[1:] for line in cells(curvature_table(log))}
    assert lines["Ones"] == ["**+3.00 (+2.02 to +3.98)**", "+0.500 (-0.481 to +1.481)", "yes"]
    # 1 is more than 0.9815, but less than 2.434 times that.
    assert lines["Gauss-Newton"] == [
        "**+1.00 (+0.02 to +1.98)** †",
        "**-1.000 (-1.981 to -0.019)** †",
        "no",
    ]
    # Three seeds: the half width is 4.303 · 0.4 / sqrt(3) = 0.994, and 3 lies between 2.434 and 4.64 times that.
    assert lines["Rademacher"] == ["**+3.00 (+2.01 to +3.99)** †", "–", "yes"]
    assert lines["Gauss-Newton, all"] == ["+0.80 (-0.18 to +1.78)", "–", "not told apart"]
    assert lines["Muon and ones"] == ["–", "–", "not told apart"]
    assert {lines[name][-1] for name in ADDED_LATER} == {"added later"}


@pytest.mark.parametrize("seeds", FOR_TWENTY)
def test_the_correction_for_twenty_widens_intervals_of_few_seeds_more(seeds: int) -> None:
    assert outside(FOR_TWENTY[seeds] * QUANTILES[seeds - 2], seeds - 1) == pytest.approx(0.05 / 20, rel=2e-3)


def test_the_heads_say_what_is_more(log: VisitLog) -> None:
    head = curvature_table(log).splitlines()[0]
    assert "VGG-11 without norm, width 8, points of test accuracy more" in head
    assert "Burgers' equation, 4 layers of 20, correct digits more" in head


def test_the_picture_has_pairs_above_and_everyone_below(log: VisitLog) -> None:
    axes = overview(log).axes
    assert [axis.get_title() for axis in axes[:2]] == [
        "VGG-11 without norm,\nwidth 8",
        "Burgers' equation, 4\nlayers of 20",
    ]
    assert [text.get_text() for text in axes[0].get_yticklabels()] == [*CURVATURE_PAIRS, *ADDED_LATER]
    names = [text.get_text() for text in axes[2].get_yticklabels()]
    assert names[:2] == ["SGDM", "SGD-PH, ones"]
    (interval,) = axes[0].containers[0].lines[2]
    (low, _), (high, _) = interval.get_segments()[0]
    assert (low, high) == pytest.approx((3 - 0.9815, 3 + 0.9815), abs=1e-3)
    # The reference has no interval of its own, and what was not run has none either.
    assert len(axes[2].containers) == 6
    assert len(axes[0].containers) == 4


def test_a_visit_without_runs_has_neither(tmp_path: Path) -> None:
    log = VisitLog(tmp_path / "none.jsonl", "core")
    assert curvature_table(log) == ""
    assert len(overview(log).axes) == 2


def test_the_command_keeps_a_log_and_writes_its_pages_and_pictures(log: VisitLog, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "results.md").write_text("<!-- core-visit: curvature -->\n<!-- end -->\n")
    (docs / "other.md").write_text("<!-- core-visit: curvature -->\n<!-- end -->\n")
    given = ["--docs", str(docs), "--log", str(tmp_path / "log.jsonl"), "--recipe"]
    done = CliRunner().invoke(page.main, [*given, "core-visit"])
    assert done.exit_code == 0, done.output
    kept = docs / "results" / "core-visit.jsonl"
    assert kept.read_text() == (tmp_path / "log.jsonl").read_text()
    assert curvature_table(log) in (docs / "results.md").read_text()
    assert "|" not in (docs / "other.md").read_text()
    pictures = docs / "images"
    assert {file.name for file in pictures.iterdir()} == {"results-core-visit.png", "results-visits.png"}
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in pictures.iterdir())
    # All visits together have no log of their own: a copy would be read by nothing.
    refused = CliRunner().invoke(page.main, [*given, "visits"])
    assert (refused.exit_code, "has no log of its own" in refused.output) == (2, True)
    assert [file.name for file in (docs / "results").iterdir()] == ["core-visit.jsonl"]
