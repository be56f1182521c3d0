"""What a network is trained for: the loss of a batch, and how a trained network is scored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Classification", "Objective", "Score"]


@dataclass(frozen=True, slots=True)
class Score:
    """How well a network does.

    Args:
        loss: The lower the better.
        score: The higher the better; NaN if the objective has none.
    """

    loss: float
    score: float = math.nan


class Objective(Protocol):
    """A loss to train on and a score to report.

    Sums are float tensors on the device. They are added over batches and processes before they become a score,
    so nothing waits for the device until the end of an epoch.
    """

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the loss of a training batch, with its graph, and the batch's sums."""

    def eval_sums(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the sums of an evaluation batch."""

    def train_score(self, sums: Tensor) -> Score:
        """Turn the added sums of training batches into a score."""

    def eval_score(self, sums: Tensor) -> Score:
        """Turn the added sums of evaluation batches into a score."""


class Classification:
    """Cross-entropy, and the percentage of correct answers. Targets are labels ``(N,)`` int64."""

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the mean cross-entropy and the sums."""
        logits = model(inputs)
        return F.cross_entropy(logits, targets), self._sums(logits.detach(), targets)

    def eval_sums(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Sum cross-entropy, correct answers and samples."""
        return self._sums(model(inputs), targets)

    def train_score(self, sums: Tensor) -> Score:
        """Give the mean cross-entropy, and the percentage of correct answers."""
        loss, correct, count = sums.tolist()
        return Score(loss / count, 100 * correct / count)

    eval_score = train_score

    def _sums(self, logits: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(logits, labels, reduction="sum").float()
        correct = (logits.argmax(1) == labels).sum()
        return torch.stack([loss, correct.float(), torch.full_like(loss, len(labels))])
