"""Train a network on images: whole epochs are augmented on the device, and steps are captured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.datasets.batches import Standardizer, crop_and_flip, translate_and_alternate
from experiments.datasets.formats import Images
from experiments.networks import build
from experiments.speedrun_network import SpeedrunNetwork
from experiments.training.methods import Setup
from experiments.visits.captured import make_step
from experiments.visits.tasks import Task, lr_factor
from experiments.visits.training import seeded_setup

__all__ = ["ImageData", "epoch_batches", "evaluate", "network", "train_images"]

EVAL_BATCH = 1000
CLASSES = 10
WHITENING_IMAGES = 5000


class ImageData:
    """Images on the training's device, with their statistics.

    Args:
        train: Images to train on.
        test: Images to evaluate on.
        device: The device.
    """

    def __init__(self, train: Images, test: Images, device: torch.device) -> None:
        self.train, self.test, self.device = train.to(device), test.to(device), device
        self.standardizer = Standardizer.from_images(self.train)
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32

    @property
    def autocast(self) -> torch.dtype | None:
        """Precision of the forward pass: half on a GPU, the parameters' own elsewhere."""
        return self.dtype if self.device.type == "cuda" else None

    def inputs(self, pixels: Tensor) -> Tensor:
        """Standardize pixels, channels last, in the precision of the forward pass."""
        return self.standardizer(pixels).to(self.dtype, memory_format=torch.channels_last)


def network(task: Task, data: ImageData, seed: int) -> nn.Module:
    """Build the task's network on the data's device, its weights decided by ``seed``."""
    if task.network != "speedrun":
        net = build(task.network, width=task.width, classes=CLASSES, seed=seed)
    else:
        images = data.standardizer(data.train.pixels[:WHITENING_IMAGES]).cpu()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = SpeedrunNetwork(task.width, CLASSES, images)
    return net.to(data.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload, no-any-return]


def epoch_batches(task: Task, data: ImageData, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Give one epoch's batches. They depend on ``seed`` and ``epoch`` alone. An incomplete last batch is dropped."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(data.train), generator=generator).to(data.device)
    if task.augmentation == "translate":
        pixels = translate_and_alternate(data.train.pixels, seed, epoch)[order]
    else:
        pixels = crop_and_flip(data.train.pixels[order], generator)
    inputs, labels = data.inputs(pixels), data.train.labels[order]
    for start in range(0, len(order) - task.batch_size + 1, task.batch_size):
        yield inputs[start : start + task.batch_size], labels[start : start + task.batch_size]


def train_images(
    task: Task,
    method: str,
    settings: dict[str, float],
    options: dict[str, object],
    data: ImageData,
    seed: int,
    epochs: int,
    on_step: Callable[[int, Setup], object] = lambda step, setup: None,
) -> dict[str, object]:
    """Train, and evaluate the plain network at the end.

    Args:
        task: Network, batches, schedule.
        method: A key of :data:`experiments.training.methods.METHODS`.
        settings: ``lr``, ``weight_decay`` and further numbers that were searched.
        options: Fixed options of the method.
        data: The images.
        seed: Decides the weights and the batches.
        epochs: Length of the training.
        on_step: Called before each step, with the number of steps taken so far, and once at the end.

    Returns:
        ``score`` (percentage of the test images that are right), ``loss`` on them, the mean ``train_losses`` of each
        epoch, ``steps``.
    """
    example = data.standardizer(data.train.pixels[:8])
    setup = seeded_setup(method, network(task, data, seed), example, settings, options, seed)
    step = make_step(setup, partial(F.cross_entropy, label_smoothing=task.label_smoothing), data.autocast)
    means, taken = [], 0
    total = epochs * (len(data.train) // task.batch_size)
    for epoch in range(1, epochs + 1):
        losses = []
        for inputs, labels in epoch_batches(task, data, seed, epoch):
            on_step(taken, setup)
            step.set_factor(lr_factor(taken / total))
            losses.append(step(inputs, labels))
            taken += 1
        means.append(torch.stack(losses).float().mean())
    on_step(taken, setup)
    score, loss = evaluate(setup.finish(setup.model), data, task.mirrored)
    train_losses = torch.stack(means).tolist()
    return {"score": score, "loss": loss, "train_losses": train_losses, "steps": taken}


@torch.no_grad()
def evaluate(model: nn.Module, data: ImageData, mirrored: bool) -> tuple[float, float]:
    """Give the percentage of test images that are right, and the mean cross-entropy.

    Args:
        model: The network.
        data: The images.
        mirrored: Whether logits are means over each image and its mirror image.
    """
    model.eval()
    loss = torch.zeros((), device=data.device)
    right = torch.zeros((), device=data.device)
    for start in range(0, len(data.test), EVAL_BATCH):
        batch = data.test[start : start + EVAL_BATCH]
        inputs = data.inputs(batch.pixels)
        with torch.autocast(data.device.type, data.autocast, enabled=data.autocast is not None):
            logits = model(inputs).float()
            if mirrored:
                logits = (logits + model(inputs.flip(-1)).float()) / 2
        loss += F.cross_entropy(logits, batch.labels, reduction="sum")
        right += (logits.argmax(1) == batch.labels).sum()
    values = torch.stack([loss, right]).tolist()
    mean = values[0] / len(data.test)
    return 100 * values[1] / len(data.test), mean if math.isfinite(mean) else math.inf
