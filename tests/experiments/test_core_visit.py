"""The visit to one core of a processor: its tasks, the equation's steps, its own log and its place on the page."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from experiments import page
from experiments.datasets.burgers import BurgersObjective, BurgersSource
from experiments.networks import build
from experiments.visits.__main__ import log_name
from experiments.visits.contenders import CONTENDERS, TRIALS, available, trial_settings
from experiments.visits.equation import Residuals, equation_batches, equation_loss, train_equation
from experiments.visits.jobs import Job, is_ready, plan, settings_of
from experiments.visits.report import PARTS, figure
from experiments.visits.scales import CORE_TASKS, tasks_at
from experiments.visits.tasks import TASKS, lr_factor
from experiments.visits.visit_log import VisitLog
from tests.experiments.test_visit_report import row

CPU = torch.device("cpu")
BURGERS = tasks_at("tiny")["burgers"]


def test_trials_are_three_eighths_of_a_run_and_a_quarter_for_text() -> None:
    for task in CORE_TASKS.values():
        share = 1 / 4 if task.is_text else 3 / 8
        assert task.trial_length == share * task.length
        assert task.reference in task.contenders


def test_whole_tasks_come_one_after_the_other() -> None:
    order = [job.task for job in plan(CORE_TASKS, ("trial", "seed"))]
    changes = sum(one != two for one, two in pairwise(order))
    assert changes == len(CORE_TASKS) - 1
    assert list(dict.fromkeys(order)) == list(CORE_TASKS)


def test_a_contender_tuned_as_another_waits_for_its_trials_and_takes_its_settings() -> None:
    task, seed = CORE_TASKS["vgg11"], Job("vgg11", "gradient-as-ones", "seed", 2)
    jobs = plan(CORE_TASKS, ("trial", "seed"))
    assert seed in jobs
    assert Job("vgg11", "gradient-as-ones", "trial", 0) not in jobs
    trials = [Job("vgg11", "sgd-ph", "trial", number) for number in range(TRIALS)]
    assert is_ready(seed, task, trials)
    assert not is_ready(seed, task, trials[1:])
    rows = [{**row("sgd-ph", "trial", number, 50.0 + number), "loss": 1.0} for number in range(TRIALS)]
    rows.append(row("gradient", "trial", 0, 99.0))
    assert settings_of(seed, task, rows) == {"lr": 0.1 + TRIALS - 1}


def test_a_task_may_have_ranges_of_its_own_for_those_that_do_not_take_sgds() -> None:
    equation, gpu = CORE_TASKS["burgers"], TASKS["language"]
    for key in available(equation):
        contender = CONTENDERS[key]
        for point in trial_settings(equation, contender):
            decay = point["weight_decay"]
            assert 1e-4 < decay < 2e-3 if contender.own is not None else 1e-7 < decay < 2e-6
            if contender.method == "muon-ph" and contender.faster == 1:
                assert 1e-4 < point["channelwise_lr"] < 2e-3
    fast = trial_settings(CORE_TASKS["language"], CONTENDERS["muon-ph-fast"])
    assert all(2e-3 < point["channelwise_lr"] < 4e-2 for point in fast)
    assert all(p["channelwise_lr"] < 4e-4 for p in trial_settings(gpu, CONTENDERS["muon-ph"]))


def test_the_equations_loss_is_that_of_the_recipe() -> None:
    source = BurgersSource(8, 50, False, CPU)
    net = build("mlp-tanh", width=4, channels=2, classes=1, seed=3)
    ((points, values),) = source.train_batches(8, 5, 0)
    ((same, known),) = equation_batches(source, 5, 1)
    assert torch.equal(points, same)
    together = Residuals(net, values[:, :2])
    expected, _ = BurgersObjective().loss(net, points, values)
    assert equation_loss(together(points), known).item() == pytest.approx(expected.item(), rel=1e-6)


def test_training_on_the_equation_is_sgd_written_out() -> None:
    source = BurgersSource(8, 50, False, CPU)
    steps, lr = 5, 0.1
    found = train_equation(BURGERS, "sgdm", {"lr": lr, "weight_decay": 0.0}, {}, source, 2, steps)
    net = build("mlp-tanh", width=4, channels=2, classes=1, seed=2)
    momenta = [torch.zeros_like(p) for p in net.parameters()]
    for taken in range(steps):
        ((points, values),) = source.train_batches(8, 2, taken)
        loss, _ = BurgersObjective().loss(net, points, values)
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for p, m, g in zip(net.parameters(), momenta, gradients, strict=True):
                m.mul_(0.9).add_(g)
                p.sub_(lr * lr_factor(taken / steps) * m)
    inputs, targets = next(source.eval_batches())
    error = (net(inputs).squeeze(1).double() - targets).norm() / targets.norm()
    assert found["loss"] == pytest.approx(error.item(), rel=1e-4)
    assert found["score"] == pytest.approx(-math.log10(error.item()), abs=1e-4)
    assert found["steps"] == steps


@pytest.mark.filterwarnings("ignore:The loss reaches trainable parameters")
@pytest.mark.parametrize("key", ["sgd-ph", "gauss-newton", "muon-gauss-newton"])
def test_second_order_steps_train_the_equations_biases(key: str) -> None:
    source, contender = BurgersSource(16, 50, False, CPU), CONTENDERS[key]
    settings = trial_settings(CORE_TASKS["burgers"], contender)[2]
    done = train_equation(BURGERS, contender.method, settings, dict(contender.options), source, 0, 60)
    losses = done["train_losses"]
    assert isinstance(losses, list)
    assert losses[-1] < losses[0]


def _log(folder: Path) -> Path:
    rows = [
        {**row(key, "seed", seed, score + seed), "task": "burgers", "scale": "core", "device": "x86_64"}
        for key, score in (("sgdm", 0.25), ("adamw", 0.5))
        for seed in range(3)
    ]
    rows.append({**row("adamw", "seed", 3, 9.0), "task": "burgers", "scale": "full"})
    file = folder / log_name("core")
    file.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return file


def test_the_log_of_a_core_has_its_own_tasks_and_digits(tmp_path: Path) -> None:
    log = VisitLog(_log(tmp_path), "core")
    assert len(log.rows) == 6
    assert (
        "| Burgers' equation, 4 layers of 20 | AdamW | 1.500 ± 1.000 (3) | +0.250 (+0.250 to +0.250) |"
        in (PARTS["scores"](log))
    )
    (axis,) = figure(log).axes
    assert axis.get_xlabel() == "correct digits more than SGDM"
    assert "images/results-core-visit.png" in PARTS["picture"](log)


def test_the_page_reads_each_visits_own_log(tmp_path: Path) -> None:
    log = VisitLog(_log(tmp_path), "core")
    text = "<!-- core-visit: scores -->\n<!-- end -->\n<!-- core-visit: conditions -->\n<!-- end -->\n"
    done = page.render(text, tmp_path)
    assert PARTS["scores"](log) in done
    assert "0 trials and 6 runs that count, on one x86_64, torch 2.11." in done
