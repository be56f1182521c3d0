"""Train a language model on the bytes of a text."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.language_model import LanguageModel
from experiments.visits.captured import make_step
from experiments.visits.tasks import Task
from experiments.visits.training import seeded_setup, train_steps

__all__ = ["TextData", "evaluate_text", "language_model", "next_byte", "text_batches", "train_text"]

HELD_OUT = 20
EVAL_SEQUENCES = 800
EVAL_BATCH = 100


class TextData:
    """A text on the training's device.

    Args:
        train: Bytes to train on, ``(N,)`` uint8.
        test: Bytes to evaluate on.
        held_out: Evaluate on the last twentieth of ``train`` instead, and do not train on it.
        device: The device.
    """

    def __init__(self, train: Tensor, test: Tensor, held_out: bool, device: torch.device) -> None:
        kept = len(train) - held_out * (len(train) // HELD_OUT)
        self.train = train[:kept].to(device)
        self.test = (train[kept:] if held_out else test).to(device)
        self.device = device
        self.autocast = torch.bfloat16 if device.type == "cuda" else None


def text_batches(task: Task, data: TextData, seed: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Give sequences from random places, ``(N, T)`` int64, and the byte that follows each of theirs, ``(N · T,)``."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(data.train) - task.context, (steps, task.batch_size), generator=generator).to(
        data.device
    )
    places = torch.arange(task.context + 1, device=data.device)
    for own in starts:
        window = data.train[own[:, None] + places].long()
        yield window[:, :-1], window[:, 1:].flatten()


def language_model(task: Task, data: TextData, seed: int) -> nn.Module:
    """Build the task's model on the data's device, its weights decided by ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LanguageModel(task.width, task.depth, task.context).to(data.device)


def next_byte(logits: Tensor, targets: Tensor) -> Tensor:
    """Give the mean cross-entropy of the bytes ``targets``, ``(N · T,)``, under logits ``(N, T, 256)``."""
    return F.cross_entropy(logits.flatten(0, 1), targets)


def train_text(
    task: Task,
    method: str,
    settings: dict[str, float],
    options: dict[str, object],
    data: TextData,
    seed: int,
    steps: int,
) -> dict[str, object]:
    """Train, and evaluate the plain model at the end; see :func:`experiments.visits.images.train_images`.

    Returns:
        ``score`` (minus the bits for each byte of the test text), ``loss`` in nats, the mean ``train_losses`` of each
        eighth of the training, ``steps``.
    """
    example = data.train[: 2 * task.context].view(2, task.context).long()
    setup = seeded_setup(method, language_model(task, data, seed), example, settings, options, seed)
    means = train_steps(
        make_step(setup, next_byte, data.autocast), text_batches(task, data, seed, steps), steps
    )
    loss = evaluate_text(setup.finish(setup.model), task, data)
    return {"score": -loss / math.log(2), "loss": loss, "train_losses": means, "steps": steps}


@torch.no_grad()
def evaluate_text(model: nn.Module, task: Task, data: TextData) -> float:
    """Give the mean cross-entropy of a byte, in nats, over the first sequences of the test text."""
    model.eval()
    count = min(EVAL_SEQUENCES, (len(data.test) - 1) // task.context)
    inputs = data.test[: count * task.context].view(count, task.context).long()
    targets = data.test[1 : count * task.context + 1].view(count, task.context).long()
    total = torch.zeros((), device=data.device)
    for start in range(0, count, EVAL_BATCH):
        with torch.autocast(data.device.type, data.autocast, enabled=data.autocast is not None):
            logits = model(inputs[start : start + EVAL_BATCH])
        own = targets[start : start + EVAL_BATCH].flatten()
        total += F.cross_entropy(logits.float().flatten(0, 1), own, reduction="sum")
    mean = float(total) / targets.numel()
    return mean if math.isfinite(mean) else math.inf
