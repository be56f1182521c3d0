"""The visit to deep networks: settings by several seeds, controls with equal settings, and equal time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.visits import perform as perform_module
from experiments.visits.contenders import CONTENDERS, TRIALS, trial_settings
from experiments.visits.deep_tasks import DEEP_TASKS
from experiments.visits.jobs import SEEDS, Job, is_ready, plan, settings_of
from experiments.visits.overview import LIKE_RADEMACHER, UNDER_MUON, WITH_EQUAL_SETTINGS, curvature_table
from experiments.visits.perform import TRIAL_SEED, Laboratory
from experiments.visits.report import PARTS
from experiments.visits.scales import log_name
from experiments.visits.visit_log import VisitLog
from tests.experiments.test_visit_report import cells, row
from tests.experiments.test_visits import CPU

VIT = DEEP_TASKS["vit"]
BOTH = 2 * TRIALS


def _trial(contender: str, number: int, score: float, **more: Any) -> dict[str, Any]:
    """A row of the log whose learning rate tells which settings it has."""
    settings = {"lr": float(number % TRIALS)}
    return {
        **row(contender, "trial", number, score, **more),
        "task": "vit",
        "settings": settings,
        "scale": "deep",
    }


def test_each_trial_has_two_seeds_and_all_of_them_decide() -> None:
    jobs = plan(DEEP_TASKS, ("trial", "seed"))
    own = [job for job in jobs if (job.task, job.contender) == ("vit", "sgd-ph")]
    assert [job.number for job in own if job.phase == "trial"] == list(range(BOTH))
    assert [job.number for job in own if job.phase == "seed"] == list(range(SEEDS))
    seed = Job("vit", "gradient-as-ones", "seed", 0)
    trials = [Job("vit", "sgd-ph", "trial", number) for number in range(BOTH)]
    assert is_ready(seed, VIT, trials)
    assert not is_ready(seed, VIT, trials[:TRIALS])
    points = trial_settings(VIT, CONTENDERS["sgd-ph"])
    assert settings_of(trials[TRIALS + 2], VIT, []) == settings_of(trials[2], VIT, []) == points[2]


def test_the_settings_with_the_best_mean_are_chosen_and_none_that_diverged() -> None:
    first = [30.0, 40.0, 31.0, 32.0, 33.0, 34.0]
    second = [30.0, 20.0, 31.0, 32.0, 36.0, None]
    rows = [_trial("sgd-ph", number, score) for number, score in enumerate(first)]
    rows += [
        _trial("sgd-ph", TRIALS + number, score or 0.0, loss=None if score is None else 1.0)
        for number, score in enumerate(second)
    ]
    # Means are 30, 30, 31, 32, 34.5, and the last did not come to its end with both seeds.
    assert settings_of(Job("vit", "sgd-ph", "seed", 3), VIT, rows) == {"lr": 4.0}
    assert settings_of(Job("vit", "gradient-as-ones", "seed", 3), VIT, rows) == {"lr": 4.0}


@pytest.mark.parametrize(
    ("job", "seed", "length"),
    [
        (Job("vit", "sgdm", "trial", 3), TRIAL_SEED, 3),
        (Job("vit", "sgdm", "trial", TRIALS + 3), TRIAL_SEED + 1, 3),
        (Job("vit", "sgdm", "seed", 4), 4, 8),
        (Job("vit", "sgdm-longer", "seed", 4), 4, 16),
    ],
)
def test_seeds_and_lengths(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, job: Job, seed: int, length: int
) -> None:
    taken: list[Any] = []
    monkeypatch.setattr(perform_module, "train_images", lambda *args: taken.append(args[-2:]) or {})
    monkeypatch.setattr(Laboratory, "images", lambda *args: None)
    Laboratory(tmp_path, CPU).perform(job, VIT, {"lr": 0.1})
    assert taken == [(seed, length)]


def test_tables_show_means_of_trials_and_both_controls(tmp_path: Path) -> None:
    rows = [_trial("sgd-ph", number, 30.0 + number) for number in range(BOTH)]
    for key, scores in {"sgd-ph": (3.0, 4.0), "gradient": (1.0, 3.0), "gradient-as-ones": (2.0, 5.0)}.items():
        rows += [
            {**row(key, "seed", n, score), "task": "vit", "scale": "deep"} for n, score in enumerate(scores)
        ]
    rows.append({**row("gradient", "seed", 2, 10.0, loss=None), "task": "vit", "scale": "deep"})
    file = tmp_path / log_name("deep")
    file.write_text("".join(json.dumps(each) + "\n" for each in rows))
    log = VisitLog(file, "deep")
    (line,) = cells(PARTS["grid"](log))
    assert line[2:] == ["33.00", "34.00", "35.00", "36.00", "37.00", "38.00"]
    shown = {line[1]: line[2] for line in cells(PARTS["scores"](log))}
    # Of 1 and 3 the mean is 2 and the deviation √2.
    assert shown["By gradient, one at a time"] == "2.00 ± 1.41 (2, and 1 diverged)"
    lines = {line[0]: line[1:] for line in cells(curvature_table(log))}
    assert list(lines) == [*WITH_EQUAL_SETTINGS, *UNDER_MUON, *LIKE_RADEMACHER]
    assert lines["Ones"][0].startswith("+1.50 (")
    assert lines["Ones, both with its settings"][0].startswith("+0.00 (")
    assert lines["Gauss-Newton"] == ["–", "not told apart"]
    assert lines["Muon and ones"] == ["–", "added later"]


def test_an_equation_with_fewer_than_no_digits_has_diverged(tmp_path: Path) -> None:
    scores = {"sgdm": (0.25, -18.3), "sgd-ph": (0.5, 0.75)}
    rows = [
        {**row(key, "seed", n, score), "task": "burgers-long", "scale": "deep"}
        for key, own in scores.items()
        for n, score in enumerate(own)
    ]
    file = tmp_path / log_name("deep")
    file.write_text("".join(json.dumps(each) + "\n" for each in rows))
    log = VisitLog(file, "deep")
    assert log.scores("burgers-long", "sgdm") == {0: 0.25}
    assert log.failures("burgers-long", "sgdm") == 1
    shown = {line[1]: line[2] for line in cells(PARTS["scores"](log))}
    assert shown["SGDM"] == "0.250 (1, and 1 diverged)"
    difference = log.difference("burgers-long", "sgd-ph", "sgdm")
    assert difference is not None
    assert (difference.mean, difference.seeds) == (0.25, 1)


def test_beside_a_searched_channel_wise_rate_adamws_is_a_third_of_muons() -> None:
    for key, contender in CONTENDERS.items():
        points = trial_settings(DEEP_TASKS["speedrun-narrow"], contender)
        if contender.method.startswith("muon") and any("channelwise_lr" in point for point in points):
            assert all(point["adamw_lr"] == pytest.approx(point["lr"] / 3) for point in points), key
