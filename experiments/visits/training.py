"""What every training of a visit does alike: an optimizer with the run's seed, and a loop over a number of steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from experiments.training.methods import METHODS, Setup
from experiments.visits.captured import Step
from experiments.visits.tasks import lr_factor

__all__ = ["seeded_setup", "train_steps"]

SHARES = 8


def seeded_setup(
    method: str,
    net: nn.Module,
    example: Tensor,
    settings: dict[str, float],
    options: dict[str, Any],
    seed: int,
) -> Setup:
    """Make the network's optimizer by a method; what the optimizer draws is decided by ``seed``."""
    setup = METHODS[method](net, example, **settings, **options)
    for group in setup.optimizer.param_groups:
        if "seed" in group:
            group["seed"] = seed
    return setup


def train_steps(step: Step, batches: Iterable[tuple[Tensor, Tensor]], steps: int) -> list[float]:
    """Train on as many batches as there are steps, and give the mean loss of each eighth of the training."""
    losses = []
    for taken, batch in enumerate(batches):
        step.set_factor(lr_factor(taken / steps))
        losses.append(step(*batch))
    return torch.stack([part.mean() for part in torch.stack(losses).float().chunk(SHARES)]).tolist()
