"""The tables and the picture of a visit, from a log whose numbers are made here."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from experiments import page
from experiments.visits.questions import QUESTIONS
from experiments.visits.report import NOTHING_YET, PARTS, figure, part
from experiments.visits.tasks import TASKS
from experiments.visits.visit_log import VisitLog


def row(contender: str, phase: str, number: int, score: float | None, **more: Any) -> dict[str, Any]:
    own = {"task": "vgg11", "contender": contender, "phase": phase, "number": number, "scale": "full"}
    own |= {"device": "H100", "torch": "2.11"}
    return {**own, "score": score, "loss": 1.0, "settings": {"lr": 0.1 + number}, "seconds": 2.0, **more}


ROWS = [
    *(row("sgdm", "trial", number, 70.0 + number) for number in range(6)),
    *(row("gradient", "trial", number, 75.0 - number) for number in range(5)),
    row("gradient", "trial", 5, None, loss=None),
    *(row("sgdm", "seed", seed, score) for seed, score in enumerate((80.0, 81.0, 82.0))),
    *(row("gradient", "seed", seed, score) for seed, score in enumerate((81.0, 82.5, 83.0))),
    *(row("sgd-ph", "seed", seed, score) for seed, score in enumerate((81.5, 82.0, 83.5))),
    row("sgd-ph", "seed", 3, 99.0, error="the process died"),
    {**row("sgd-ph", "seed", 4, 99.0), "scale": "smoke"},
    row("sgdm", "timing", 0, None, milliseconds=1.25),
]


@pytest.fixture
def log(tmp_path: Path) -> VisitLog:
    (tmp_path / "gpu-visit.jsonl").write_text("".join(json.dumps(each) + "\n" for each in ROWS))
    return VisitLog(tmp_path / "gpu-visit.jsonl")


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_scores_are_means_with_differences_paired_by_seed(log: VisitLog) -> None:
    lines = cells(PARTS["scores"](log))
    assert [line[1] for line in lines] == ["SGD-PH, ones", "By gradient, one at a time", "SGDM"]
    # SGDM: mean 81, deviation 1; its best trial is the last. Differences of |g|: 1, 1.5, 1, so mean 7/6,
    # deviation sqrt(1/12), half width 4.303 * sqrt(1/12) / sqrt(3) = 0.717.
    assert lines[2][2:] == ["81.00 ± 1.00 (3)", "", "1.25", "lr 5.1"]
    assert lines[1][3] == "+1.17 (+0.45 to +1.88)"
    assert lines[1][4:] == ["–", "lr 0.1"]


def test_answers_follow_the_interval(log: VisitLog) -> None:
    lines = {line[0]: line[1:] for line in cells(PARTS["answers"](log))}
    assert lines.keys() == {
        question for question, pair in QUESTIONS.items() if set(pair) <= {"sgdm", "gradient", "sgd-ph"}
    }
    # ones − |g|: 0.5, −0.5, 0.5.
    half = 4.303 * math.sqrt(1 / 3) / math.sqrt(3)
    expected = f"+0.17 ({1 / 6 - half:+.2f} to {1 / 6 + half:+.2f})"
    assert lines["Is it the Hessian? Ones against no Hessian"] == [
        "VGG-11 without norm",
        expected,
        "not told apart",
    ]
    assert lines["Is it the normalized step? No Hessian against SGDM"][2] == "better"


def test_all_trials_are_shown(log: VisitLog) -> None:
    lines = cells(PARTS["grid"](log))
    assert lines[0][2:] == [f"{70 + number:.2f}" for number in range(6)]
    assert lines[1][2:] == [*(f"{75 - number:.2f}" for number in range(5)), "diverged"]


def test_the_picture_has_a_panel_for_each_task_with_runs(log: VisitLog) -> None:
    drawn = figure(log)
    assert [axis.get_title("left") for axis in drawn.axes] == [TASKS["vgg11"].label]
    names = [text.get_text() for text in drawn.axes[0].get_yticklabels()]
    assert names == ["SGDM", "By gradient, one at a time", "SGD-PH, ones"]


def test_the_page_takes_a_visits_tables(log: VisitLog, tmp_path: Path) -> None:
    text = "before\n<!-- gpu-visit: answers -->\n<!-- end -->\nafter\n"
    done = page.render(text, tmp_path)
    assert PARTS["answers"](log) in done
    assert page.render(done, tmp_path) == done


@pytest.mark.parametrize("name", PARTS)
def test_a_part_without_runs_says_so(name: str, tmp_path: Path) -> None:
    assert part(name, VisitLog(tmp_path / "none.jsonl")) == NOTHING_YET


def test_a_page_says_on_what_and_how_much_was_run(log: VisitLog) -> None:
    assert part("conditions", log) == "12 trials and 9 runs that count, on one H100, torch 2.11."
    assert "images/results-gpu-visit.png" in part("picture", log)


def test_alignment_is_given_by_kind_of_parameter(tmp_path: Path) -> None:
    measured = [
        {"step": step, "parameter": name, "role": "gain", "cosine": cosine, "cosine_of_sizes": 1.0, "ratio": 1.0,
         "invariance": None}
        for name, cosines in (("a", (1.0, 0.5)), ("b", (0.8, 0.1)), ("c", (0.9, -0.2)))
        for step, cosine in zip((0, 300), cosines, strict=True)
    ]  # fmt: skip
    own = {**row("sgd-ph", "alignment", 0, 70.0), "alignment": measured}
    (tmp_path / "log.jsonl").write_text(json.dumps(own) + "\n")
    text = PARTS["alignment"](VisitLog(tmp_path / "log.jsonl"))
    assert "| gain | 3 | +0.90 (+0.80 to +1.00) | +0.10 (-0.20 to +0.50) |" in text
