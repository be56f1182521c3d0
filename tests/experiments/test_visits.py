"""The visit to a GPU, at a size for the processor: its order, its choices, its clock, its log."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from experiments.visits import perform as perform_module
from experiments.visits.__main__ import log_name, main
from experiments.visits.contenders import CONTENDERS, TRIALS, available, trial_settings
from experiments.visits.jobs import SEEDS, Job, best_trial, is_ready, plan, read_rows, settings_of
from experiments.visits.perform import Laboratory
from experiments.visits.scales import CORE_TASKS, tasks_at
from experiments.visits.tasks import TASKS, lr_factor
from experiments.visits.workers import Visit, run_visit
from tests.experiments.dataset_files import write_cifar10_binary
from tests.experiments.text_files import write_text_files

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a few images and a text."""
    root = tmp_path_factory.mktemp("visit")
    write_cifar10_binary(root, 10)
    write_text_files(root, b"the cat sat on the mat. " * 800)
    return root


@pytest.fixture(autouse=True)
def _few_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.datasets.load.HELD_OUT", 20)


def test_every_contender_has_the_same_number_of_trials_in_its_ranges() -> None:
    for task in (*TASKS.values(), *CORE_TASKS.values()):
        for key in available(task):
            ranges, points = CONTENDERS[key].ranges(task), trial_settings(task, CONTENDERS[key])
            if CONTENDERS[key].tuned_as:
                assert points == []
                continue
            assert len(points) == TRIALS
            for point in points:
                assert all(
                    low <= point[name] * 1.01 and point[name] <= high * 1.01
                    for name, (low, high) in ranges.items()
                )
            assert len({point["lr"] for point in points}) == TRIALS


def test_contenders_whose_options_this_version_lacks_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.visits.contenders.SGDPH", torch.optim.SGD)
    assert available(TASKS["vgg11"]) == ["sgdm-wn", "sgdm", "adamw", "adam-channelwise", "muon-adamw"]


def test_trials_come_before_seeds_first_seeds_before_later_ones_and_tiers_in_order() -> None:
    jobs = plan(TASKS, ("trial", "seed", "alignment"))
    place = {job: number for number, job in enumerate(jobs)}
    assert len(place) == len(jobs)
    tiers = [
        TASKS[j.task].tier + (j.contender in TASKS[j.task].later) for j in jobs if j.phase != "alignment"
    ]
    assert tiers == sorted(tiers)
    for job in jobs:
        if job.phase == "seed":
            assert all(place[Job(job.task, job.contender, "trial", n)] < place[job] for n in range(TRIALS))
            assert job.number == 0 or place[Job(job.task, job.contender, "seed", job.number - 1)] < place[job]
    first = [job for job in jobs[: tiers.count(1)] if job.phase == "seed"]
    assert [job.number for job in first] == sorted(job.number for job in first)
    assert {job.number for job in first} == set(range(SEEDS))
    assert [job.phase for job in plan(TASKS, ("timing",))] == ["timing"] * len(plan(TASKS, ("timing",)))


def row(job: Job, score: float | None, loss: float | None = 1.0, **more: Any) -> dict[str, Any]:
    own = {"task": job.task, "contender": job.contender, "phase": job.phase, "number": job.number}
    return {
        **own,
        "score": score,
        "loss": loss,
        "seconds": 1.0,
        "settings": {"lr": float(job.number)},
        **more,
    }


def test_seeds_get_the_settings_of_the_trial_that_did_best_on_held_out_data() -> None:
    trials = [Job("vgg11", "sgdm", "trial", number) for number in range(TRIALS)]
    rows = [row(trial, 50.0 + number) for number, trial in enumerate(trials)]
    rows[-1] = row(trials[-1], 99.0, loss=None)
    rows[-2] = {**row(trials[-2], 98.0), "error": "the process died"}
    seed = Job("vgg11", "sgdm", "seed", 0)
    assert settings_of(seed, TASKS["vgg11"], [*rows, row(Job("vgg11", "adamw", "trial", 0), 100.0)]) == {
        "lr": 3.0
    }
    assert best_trial(seed, rows[-2:]) is None
    assert is_ready(seed, TASKS["vgg11"], trials)
    assert not is_ready(seed, TASKS["vgg11"], trials[1:])
    assert settings_of(seed, TASKS["vgg11"], rows[-2:]) is None


def visit(jobs: list[Job], rows: list[Any], seconds: float) -> Visit:
    return Visit(jobs, tasks_at("tiny"), rows, time.monotonic() + seconds, lambda row: None)


def test_a_job_is_not_begun_if_it_is_not_likely_to_end_in_time() -> None:
    jobs = [Job("vgg11", "sgdm", "trial", 0), Job("language", "sgdm", "trial", 0)]
    slow = {**row(Job("vgg11", "adamw", "trial", 0), 1.0), "seconds": 100.0}
    quick = {**row(Job("language", "adamw", "trial", 0), 1.0), "seconds": 0.5}
    chosen = visit(jobs, [slow, quick], 20).next_job()
    assert chosen is not None
    assert chosen[0] == jobs[1]
    assert visit(jobs, [slow, quick], 0.1).next_job() is None


def test_no_job_is_given_out_twice_and_seeds_wait_for_trials() -> None:
    trials = [Job("vgg11", "sgdm", "trial", number) for number in range(TRIALS)]
    seed = Job("vgg11", "sgdm", "seed", 0)
    own = visit([seed, *trials], [row(trials[0], 1.0)], 1000)
    given = [chosen[0] for chosen in iter(own.next_job, None)]
    assert given == trials[1:]
    for trial in trials[1:]:
        own.take(row(trial, 2.0))
    chosen = own.next_job()
    assert chosen is not None
    assert chosen[0] == seed
    assert own.next_job() is None


def run(data: Path, out: Path, *options: str) -> list[dict[str, Any]]:
    arguments = ["--data", str(data), "--out", str(out), "--scale", "tiny", "--device", "cpu", *options]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return read_rows(out / log_name("tiny"))


def take_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trials and two seeds of each contender."""
    for name, number in (("TRIALS", 2), ("SEEDS", 2), ("FIRST_SEEDS", 1)):
        monkeypatch.setattr(f"experiments.visits.jobs.{name}", number)


@pytest.mark.parametrize("task", ["vgg11", "speedrun", "language", "burgers"])
def test_every_contender_of_a_task_is_tuned_and_trained(
    task: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_fewer(monkeypatch)
    rows = run(data, tmp_path, "--workers", "0", "--only", f"{task}/*", "--minutes", "5")
    assert [found["error"] for found in rows if "error" in found] == []
    done = [Job.of(found) for found in rows]
    expected = [job for job in plan(tasks_at("tiny"), ("trial", "seed", "alignment")) if job.task == task]
    assert done == expected
    for found in rows:
        if found["phase"] != "trial" and tasks_at("tiny")[task].train_size:
            assert found["steps"] == 2
        assert found["score"] is None or math.isfinite(found["score"])
    seeds = [found for found in rows if found["phase"] == "seed" and found["contender"] == "sgdm"]
    assert all(found["settings"] == seeds[0]["settings"] for found in seeds)


def test_a_visit_goes_on_with_what_its_log_does_not_hold(data: Path, tmp_path: Path) -> None:
    options = ("--workers", "0", "--only", "language/sgdm")
    rows = run(data, tmp_path, *options)
    assert len(rows) == TRIALS + SEEDS
    log = tmp_path / log_name("tiny")
    lines = log.read_text().splitlines()
    log.write_text("\n".join(lines[:-3]) + "\n" + lines[-1][:20])
    again = run(data, tmp_path, *options)
    assert [Job.of(found) for found in again] == [Job.of(found) for found in rows]
    timeless = [{key: value for key, value in found.items() if key != "seconds"} for found in [*rows, *again]]
    assert timeless[: len(rows)] == timeless[len(rows) :]


def test_a_smoke_test_takes_one_trial_of_everyone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.visits.scales.SMOKE_STEPS", 1)
    rows = run(data, tmp_path, "--workers", "0", "--scale", "smoke", "--only", "language/*w")
    assert [Job.of(found) for found in rows] == [
        Job("language", contender, "trial", 0) for contender in ("adamw", "muon-adamw")
    ]
    assert all(found["steps"] == 1 for found in rows)


def test_a_training_that_fails_is_a_row_with_its_error_and_ends_nothing_else(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = perform_module.train_text

    def sometimes(task: Any, method: str, *rest: Any) -> dict[str, object]:
        if method == "adamw":
            raise RuntimeError("made up")
        return train(task, method, *rest)

    monkeypatch.setattr(perform_module, "train_text", sometimes)
    rows = run(data, tmp_path, "--workers", "0", "--only", "language/sgdm", "--only", "language/adamw")
    failed = [found for found in rows if "error" in found]
    assert {(found["contender"], found["phase"]) for found in failed} == {("adamw", "trial")}
    assert failed[0]["error"] == "RuntimeError: made up"
    assert sum("error" not in found for found in rows) == TRIALS + SEEDS


def test_processes_do_the_jobs_and_are_stopped_when_the_time_is_over(data: Path, tmp_path: Path) -> None:
    rows = run(data, tmp_path, "--workers", "1", "--only", "language/sgdm", "--minutes", "2")
    assert len(rows) == TRIALS + SEEDS
    started = time.monotonic()
    tasks = tasks_at("tiny")
    tasks["language"] = replace(tasks["language"], trial_length=100_000)
    stopped: list[Any] = []
    run_visit(
        Visit([Job("language", "sgdm", "trial", 0)], tasks, [], started + 11, stopped.append), data, CPU, 1
    )
    assert 10 < time.monotonic() - started < 30
    assert stopped == []


def test_the_time_of_a_step_is_measured(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take_fewer(monkeypatch)
    options = ("--workers", "0", "--only", "language/sgdm", "--only", "speedrun/muon-ph")
    rows = run(data, tmp_path, *options)
    timed = [found for found in run(data, tmp_path, *options, "--timing") if found["phase"] == "timing"]
    assert len(rows) == 2 * (2 + 2)
    assert {(found["task"], found["contender"]) for found in timed} == {
        ("language", "sgdm"),
        ("speedrun", "muon-ph"),
    }
    assert all(0 < found["milliseconds"] < 10_000 for found in timed)


def test_alignment_is_measured_along_a_training(data: Path) -> None:
    tasks = tasks_at("tiny")
    job = Job("resnet18", "sgd-ph", "alignment")
    found = Laboratory(data, CPU).perform(job, tasks["resnet18"], {"lr": 0.01, "weight_decay": 5e-3})
    (first,) = {each["step"] for each in found["alignment"]}
    assert first == 0
    scales = [
        each for each in found["alignment"] if each["role"] == "norm.weight" and each["invariance"] < 1e-3
    ]
    assert scales
    # At γ = 1, β = 0 the loss does not change with the scale, so H·1 of γ is −g.
    assert all(each["cosine"] > 0.999 for each in scales)
    json.dumps(found)


def test_learning_rates_rise_and_fall_to_zero() -> None:
    factors = [lr_factor(step / 200) for step in range(200)]
    top = factors.index(max(factors))
    assert 0.13 < top / 200 < 0.17
    assert factors[0] > 0
    assert factors[:top] == sorted(factors[:top])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert 0 < factors[-1] < 0.01
