"""The numbers of one epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["EpochMetrics"]


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """What one epoch gave: one line of the log.

    Args:
        epoch: Counted from 1.
        train_loss: Training loss, the mean over the epoch as it ran, on augmented batches.
        train_accuracy: Percentage of these classified correctly; NaN where there are no classes.
        test_loss: Loss on the test set after the epoch, in evaluation mode; NaN where not evaluated.
        test_accuracy: The score on the test set; NaN where not evaluated. For images it is the percentage
            classified correctly, for a differential equation the number of correct digits.
        seconds: Wall time of training so far, without evaluation.
        cpu_seconds: Processor time of training so far, over all threads.
        data_seconds: The part of ``seconds`` that went into making batches.
        peak_bytes: Peak memory of tensors on an accelerator in the epoch; NaN on a CPU.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float
    cpu_seconds: float
    data_seconds: float
    peak_bytes: float = math.nan

    @property
    def evaluated(self) -> bool:
        """Whether the test set was evaluated."""
        return math.isfinite(self.test_accuracy)

    @property
    def diverged(self) -> bool:
        """Whether a loss is not finite any more."""
        return not (math.isfinite(self.train_loss) and (math.isfinite(self.test_loss) or not self.evaluated))
