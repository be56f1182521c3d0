"""The loop, against a plain one written out here."""

from __future__ import annotations

import itertools
import math
import time

import pytest
import torch
from torch import nn

from experiments.datasets.batches import augmented_batches
from experiments.datasets.formats import Images
from experiments.datasets.sources import InMemorySource
from experiments.networks import build
from experiments.training.config import RunConfig
from experiments.training.loop import evaluate, train
from experiments.training.methods import METHODS
from experiments.training.timer import Timer

CPU = torch.device("cpu")


def tiny_task(count: int = 40) -> InMemorySource:
    """Make images that a network can tell apart: each class has its own brightness."""
    labels = torch.arange(count) % 10
    noise = torch.randint(0, 20, (count, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    images = Images((labels[:, None, None, None] * 20 + noise).to(torch.uint8), labels)
    return InMemorySource.on_device(images, images[:20], 10, CPU)


def test_learning_rate_falls_as_in_the_paper() -> None:
    long = RunConfig("vgg11", 8, "sgdm", lr=1.0, weight_decay=0.0, epochs=200)
    # 200 epochs, times 0.1 every 60.
    changes = {1: 1.0, 60: 1.0, 61: 0.1, 120: 0.1, 121: 0.01, 180: 0.01, 181: 0.001, 200: 0.001}
    assert {epoch: long.lr_factor(epoch) for epoch in changes} == pytest.approx(changes)
    short = RunConfig("vgg11", 8, "sgdm", lr=1.0, weight_decay=0.0, epochs=10)
    assert [short.lr_factor(epoch) for epoch in (3, 4, 6, 7, 9, 10)] == pytest.approx(
        [1, 0.1, 0.1, 0.01, 0.01, 1e-3]
    )


def test_sgdm_is_the_usual_loop() -> None:
    task = tiny_task()
    recipe = RunConfig("vgg11-bn", 8, "sgdm", lr=0.05, weight_decay=0.01, epochs=2, batch_size=16, seed=3)
    epochs = list(train(recipe, task))

    net = build("vgg11-bn", width=8, seed=3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    for epoch, lr in ((1, 0.05), (2, 0.005)):
        optimizer.param_groups[0]["lr"] = lr
        net.train()
        losses, right = [], 0
        for inputs, labels in augmented_batches(task.train, 16, task.standardizer, seed=3, epoch=epoch):
            optimizer.zero_grad()
            logits = net(inputs)
            loss = nn.CrossEntropyLoss()(logits, labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            right += sum(
                int(row.argmax()) == label for row, label in zip(logits, labels.tolist(), strict=True)
            )
        net.eval()
        logits = net(task.standardizer(task.test.pixels))
        record = epochs[epoch - 1]
        assert record.epoch == epoch
        assert record.train_loss == pytest.approx(sum(losses) / 2, rel=1e-5)
        assert record.train_accuracy == pytest.approx(100 * right / 32)
        assert record.test_loss == pytest.approx(
            nn.CrossEntropyLoss()(logits, task.test.labels).item(), rel=1e-5
        )


def test_evaluation_counts_correct_answers() -> None:
    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([0.0, math.log(2), *[0.0] * 8]).expand(len(x), 10)

    # Two of twenty images have label 1. Odds are 2 : 1 : ... : 1, so p = 2/11 for label 1, else 1/11.
    score = evaluate(Constant(), tiny_task())
    assert score.score == pytest.approx(10.0)
    assert score.loss == pytest.approx(math.log(11) - 0.1 * math.log(2), rel=1e-6)


@pytest.mark.parametrize("network", ["vgg11", "resnet18"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_and_finishes_as_the_plain_network(network: str, method: str) -> None:
    task = tiny_task()
    net = build(network, width=8)
    # Small enough that Adam keeps VGG-11's loss falling whatever the rounding.
    made = METHODS[method](net, task.standardizer(task.train.pixels), 0.003, 1e-4)
    made.model.train()
    losses = []
    for _ in range(12):
        made.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(
            made.model(task.standardizer(task.train.pixels)), task.train.labels
        )
        made.backward(loss)
        made.optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    finished = made.finish(made.model)
    assert list(finished.state_dict()) == list(net.state_dict())
    assert evaluate(finished, task).loss == pytest.approx(evaluate(made.model, task).loss, rel=1e-4)


def test_every_method_starts_from_the_same_function() -> None:
    task = tiny_task()
    starts = [
        evaluate(
            METHODS[method](
                build("vgg11", width=8, seed=1), task.standardizer(task.train.pixels), 0.1, 0.0
            ).model,
            task,
        ).loss
        for method in METHODS
    ]
    assert all(start == pytest.approx(starts[0], rel=1e-4) for start in starts)


def test_a_run_that_diverges_ends_early() -> None:
    recipe = RunConfig("vgg11", 8, "sgdm", lr=1e9, weight_decay=0.0, epochs=9, batch_size=8)
    epochs = list(train(recipe, tiny_task()))
    assert len(epochs) < 9
    assert epochs[-1].diverged


def test_less_than_a_batch_is_an_error() -> None:
    with pytest.raises(ValueError, match="40 training samples make no batch of 64"):
        next(train(RunConfig("vgg11", 8, "sgdm", 0.1, 0.0, 1, batch_size=64), tiny_task()))


def test_the_timer_counts_only_what_runs_under_it() -> None:
    timer = Timer(CPU)

    def slow_batches() -> itertools.chain[int]:
        time.sleep(0.02)
        return itertools.chain([1, 2])

    with timer:
        time.sleep(0.03)
    time.sleep(0.05)
    started = time.perf_counter()
    with timer:
        assert list(timer.time_batches(slow_batches())) == [1, 2]
    assert 0.03 <= timer.seconds <= 0.03 + time.perf_counter() - started + 0.04
    assert timer.cpu_seconds < timer.seconds


def test_bfloat16_trains_like_float32_to_its_precision() -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        config = RunConfig("vgg11-bn", 8, "sgd-ph", 0.01, 0.0, 2, 10, precision=precision)
        losses[precision] = [epoch.train_loss for epoch in train(config, tiny_task())]
    # Eight bits of mantissa; the first epoch's loss is near log 10.
    assert losses["bfloat16"][0] == pytest.approx(losses["float32"][0], rel=0.1)
    assert losses["bfloat16"] != losses["float32"]


def test_an_unknown_precision_is_an_error() -> None:
    config = RunConfig("vgg11", 8, "sgdm", 0.1, 0.0, 1, 10, precision="float8")
    with pytest.raises(ValueError, match="precision is 'float8', but must be one of float32, bfloat16"):
        next(train(config, tiny_task()))


def test_every_group_keeps_its_own_learning_rate_through_the_decay() -> None:
    options = {"channelwise_lr": 0.004}
    config = RunConfig("vgg11", 8, "adam-channelwise", 0.02, 0.0, 4, 10, options=options)
    seen: list[list[float]] = []
    made = METHODS["adam-channelwise"]

    def spy(*args: object, **kwargs: object) -> object:
        setup = made(*args, **kwargs)  # type: ignore[arg-type]
        step = setup.optimizer.step

        def record() -> None:
            seen.append([group["lr"] for group in setup.optimizer.param_groups])
            step()

        setup.optimizer.step = record  # type: ignore[method-assign]
        return setup

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "adam-channelwise", spy)  # type: ignore[arg-type]
        list(train(config, tiny_task()))
    # Four steps an epoch; the rates fall to a tenth after 30%, 60% and 90% of four epochs.
    for epoch, factor in enumerate((1, 1, 0.1, 0.01)):
        assert seen[4 * epoch] == pytest.approx([0.02 * factor, 0.004 * factor])
