"""The table and the picture of all tasks together, from logs whose numbers are made here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer

from experiments.page import render
from experiments.visits.glance import BY_GRADIENT, control_of, places, table
from experiments.visits.glance_figure import figure
from experiments.visits.scales import log_name
from tests.experiments.test_visit_report import cells, row

# The deviation is sqrt(2.5 / 4), so the half width of five pairs is 2.776 · sqrt(0.625) / sqrt(5) = 0.9815.
SPREAD = (-1.0, -0.5, 0.0, 0.5, 1.0)
HALF_WIDTH = 0.9815

RUNS: dict[tuple[str, str, str], tuple[float, ...]] = {
    ("core", "vgg11", "sgdm"): (40.0,) * 5,
    ("core", "vgg11", "gradient"): (41.0,) * 5,
    ("core", "vgg11", "gradient-as-ones"): (42.0,) * 5,
    ("core", "vgg11", "sgd-ph"): tuple(43.0 + by for by in SPREAD),
    ("core", "vgg11", "gauss-newton"): tuple(44.0 + by for by in SPREAD),
    ("core", "vgg11", "adamw"): (45.0, 47.0),
    ("core", "language", "muon-ph-fast"): (-2.75,) * 5,
    ("core", "language", "muon-adamw"): (-2.5,) * 5,
    ("deep", "vit", "sgdm"): (20.0,) * 5,
    ("deep", "vit", "sgd-ph"): (21.0,) * 5,
}
RATES = {"gradient": 0.1, "sgd-ph": 0.2, "gauss-newton": 0.3}
MILLISECONDS = {"sgdm": 4.0, "sgd-ph": 6.0}


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A folder of logs in which each contender of VGG-11 was tuned to a learning rate of its own."""
    rows = [
        {**row(key, "seed", seed, score), "task": task, "scale": scale}
        for (scale, task, key), scores in RUNS.items()
        for seed, score in enumerate(scores)
    ]
    vgg = {"task": "vgg11", "scale": "core"}
    rows += [{**row(key, "trial", 0, 1.0), **vgg, "settings": {"lr": rate}} for key, rate in RATES.items()]
    rows += [{**row(key, "timing", 0, 0.0), **vgg, "milliseconds": ms} for key, ms in MILLISECONDS.items()]
    for scale in ("core", "deep"):
        own = [json.dumps(each) + "\n" for each in rows if each["scale"] == scale]
        (tmp_path / log_name(scale)).write_text("".join(own))
    return tmp_path


def test_the_table_has_everyones_mean_and_the_best_in_bold(logs: Path) -> None:
    lines = {line[0]: line[1:] for line in cells(table(logs).replace("\\|", "/"))}
    assert lines == {
        "VGG-11, no norm": ["40.0", "41.0", "43.0", "–", "44.0", "**46.0** (2)", "–", "–", "1.5"],
        "ViT": ["20.0", "–", "**21.0**", "–", "–", "–", "–", "–", "~2.0"],
        # A score is minus the bits for each byte, so the greatest has the fewest.
        "bytes, Muon": ["–", "–", "2.75", "–", "–", "–", "**2.50**", "–", "–"],
    }


def test_the_control_has_the_same_settings_where_somebody_ran_it(logs: Path) -> None:
    vgg, vit, _ = places(logs)
    assert control_of(vgg, "sgd-ph", BY_GRADIENT) == ("gradient-as-ones", True)
    assert control_of(vgg, "gauss-newton", BY_GRADIENT) == ("gradient", False)
    assert control_of(vit, "sgd-ph", BY_GRADIENT) is None


def test_the_picture_has_intervals_of_pairs_and_hollow_marks_for_other_settings(logs: Path) -> None:
    left, right, _, language = figure(logs).axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["VGG-11, no norm", "ViT"]
    assert _drawn(left) == [
        pytest.approx((1 - HALF_WIDTH, 1, 1 + HALF_WIDTH), abs=1e-3),  # 43 beside 42, the same settings
        pytest.approx((3 - HALF_WIDTH, 3, 3 + HALF_WIDTH), abs=1e-3),  # 44 beside 41, each with its own
    ]
    assert [_is_filled(each) for each in left.containers] == [True, False]
    means = [mean for _, mean, _ in _drawn(right)]
    assert means == pytest.approx(
        [3.0, -3.75, 1.0]
    )  # SGDM; AdamW, over the two seeds of both; SGDM of the ViT
    assert [mean for _, mean, _ in _drawn(language)] == pytest.approx([-0.25])


def _drawn(axis: Axes) -> list[tuple[float, float, float]]:
    found = []
    for container in axis.containers:
        assert isinstance(container, ErrorbarContainer)
        (bars,) = container.lines[2]
        (low, _), (high, _) = bars.get_segments()[0]
        found.append((float(low), float(container.lines[0].get_xdata()[0]), float(high)))
    return found


def _is_filled(container: object) -> bool:
    assert isinstance(container, ErrorbarContainer)
    return bool(container.lines[0].get_markerfacecolor() != "white")


def test_a_page_shows_both(logs: Path) -> None:
    page = render("<!-- visits: table -->\n<!-- end -->\n<!-- visits: picture -->\n<!-- end -->\n", logs)
    assert table(logs) in page
    assert "(images/results-visits.png)" in page


def test_without_runs_there_is_neither(tmp_path: Path) -> None:
    assert table(tmp_path) == ""
    assert len(figure(tmp_path).axes) == 2
    assert render("<!-- visits: picture -->\n<!-- end -->", tmp_path).count("png") == 0
