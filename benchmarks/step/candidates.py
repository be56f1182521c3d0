"""What is compared, as one table."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sgdph_fx import SGDPH, prepare

__all__ = ["CONTENDERS", "Trainer", "available"]

# Small, so that hundreds of steps on one batch of noise stay finite; no figure depends on it.
LR = 1e-5


@dataclass(frozen=True, slots=True)
class Trainer:
    """A network with its optimizer.

    Args:
        model: The network.
        optimizer: Its optimizer.
        create_graph: Whether it wants ``loss.backward(create_graph=True)``.
        share: Of the batch, what SGD-PH takes the Hessian of; if not all, by a forward pass of its own.
    """

    model: nn.Module
    optimizer: Optimizer
    create_graph: bool = False
    share: float = 1.0

    def step(self, batch: tuple[Tensor, Tensor]) -> None:
        """One whole training step."""
        self.optimizer.zero_grad()
        loss = self._loss(*batch)
        if self.create_graph:
            torch.autograd.backward(loss, create_graph=True)
        elif isinstance(self.optimizer, SGDPH):
            part = [t[: int(self.share * len(t))] for t in batch]
            self.optimizer.backward(loss, hessian_loss=None if self.share == 1 else lambda: self._loss(*part))
        else:
            torch.autograd.backward(loss)
        self.optimizer.step()

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.model(images), labels)

    def moments(self, sample: int) -> list[tuple[int, float]]:
        """Steps that stand for a full Hessian cycle: how many were taken before each, and its share of the cycle.

        Refreshes are sampled evenly over the cycle's parameters, every one if there are at most ``sample``; with
        an interval one of the steps between, all alike, comes after every fourth of them, as these weigh the most.
        """
        if not isinstance(self.optimizer, SGDPH):
            return [(0, 1.0)]
        groups = self.optimizer.param_groups
        count = sum(len(group["params"]) for group in groups if group["order"] == 2)
        interval: int = groups[0]["hessian_interval"]
        chosen = min(sample, count)
        refreshed = [int((i + 0.5) * count / chosen) * interval for i in range(chosen)]
        moments = [(step, 1 / (interval * chosen)) for step in refreshed]
        if interval == 1:
            return moments
        fours = [moments[i : i + 4] for i in range(0, chosen, 4)]
        return [moment for four in fours for moment in (*four, (1, (1 - 1 / interval) / len(fours)))]

    def go_to(self, step: int) -> None:
        """Make the next step the one after ``step`` steps."""
        if isinstance(self.optimizer, SGDPH):
            for group in self.optimizer.param_groups:
                group["step"] = step


def _sgd(net: nn.Module, example: Tensor) -> Trainer:
    return Trainer(net, torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9, weight_decay=5e-4))


def _sgd_ph(
    *, create_graph: bool = False, share: float = 1.0, **options: Any
) -> Callable[[nn.Module, Tensor], Trainer]:
    def make(net: nn.Module, example: Tensor) -> Trainer:
        model, groups, _ = prepare(net, example, inplace=True)
        return Trainer(model, SGDPH(groups, lr=LR, weight_decay=5e-4, **options), create_graph, share)

    return make


def _of_package(name: str, *, create_graph: bool) -> Callable[[nn.Module, Tensor], Trainer]:
    def make(net: nn.Module, example: Tensor) -> Trainer:
        kind = getattr(importlib.import_module("pytorch_optimizer"), name)
        return Trainer(net, kind(net.parameters(), lr=LR), create_graph)

    return make


CONTENDERS: Mapping[str, Callable[[nn.Module, Tensor], Trainer]] = {
    "SGD": _sgd,
    "SGD-PH": _sgd_ph(),
    "SGD-PH, rademacher": _sgd_ph(probe="rademacher"),
    "SGD-PH, every 10th step": _sgd_ph(hessian_interval=10),
    "SGD-PH, of a quarter": _sgd_ph(share=0.25),
    "SGD-PH, create_graph": _sgd_ph(create_graph=True),
    # pytorch_optimizer 4.1.0; its AdaHessian draws its probes as signs of both kinds, read in its source.
    "AdaHessian": _of_package("AdaHessian", create_graph=True),
    "Apollo": _of_package("ApolloDQN", create_graph=False),
}
"""By name: (network, example input) ↦ trainer. The first is what all are compared with."""

_NEEDS_PACKAGE = ("AdaHessian", "Apollo")


def available() -> list[str]:
    """The contenders whose packages are installed."""
    found = importlib.util.find_spec("pytorch_optimizer") is not None
    return [name for name in CONTENDERS if found or name not in _NEEDS_PACKAGE]
