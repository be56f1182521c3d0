"""The settings of one training run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["PRECISIONS", "RunConfig"]

DECAY = 0.1
DECAY_INTERVAL = 0.3
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything that decides a run, given its data.

    Args:
        network: A key of :data:`experiments.networks.NETWORKS`, or of the other tables there.
        width: Channels of its first convolution.
        method: A key of :data:`experiments.training.methods.METHODS`: how the network is prepared and optimized.
        lr: Learning rate τ at the start. It is multiplied by 0.1 at each decay.
        weight_decay: Weight decay η.
        epochs: Number of epochs.
        batch_size: Samples in a batch. An incomplete last batch is dropped.
        seed: Decides the initial weights and the batches, in the same way for every method.
        decay_every: Epochs between decays. None decays after every 30% of the epochs, which is the paper's
            schedule (every 60 of 200 epochs, every 30 of 100) at any length.
        options: Further hyper-parameters of the method, by name.
        eval_every: Epochs between evaluations on the test set. The last epoch is always evaluated.
        channels_last: Store channels innermost. This changes the numbers only by rounding, and is faster on
            most devices.
        precision: ``"float32"``, or ``"bfloat16"`` for autocast.
    """

    network: str
    width: int
    method: str
    lr: float
    weight_decay: float
    epochs: int
    batch_size: int = 128
    seed: int = 0
    decay_every: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    eval_every: int = 1
    channels_last: bool = False
    precision: str = "float32"

    def lr_factor(self, epoch: int) -> float:
        """Give the factor on all learning rates in ``epoch``, counted from 1."""
        every = DECAY_INTERVAL * self.epochs if self.decay_every is None else self.decay_every
        return float(DECAY ** math.floor((epoch - 1) / every + 1e-9))

    def evaluates_after(self, epoch: int) -> bool:
        """Tell whether the test set is evaluated after ``epoch``."""
        return epoch % self.eval_every == 0 or epoch == self.epochs
