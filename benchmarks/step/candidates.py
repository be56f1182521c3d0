"""The optimizers that the benchmark compares, in one table."""

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

__all__ = ["CANDIDATES", "Trainer", "available"]

# So small that hundreds of steps on one batch of noise stay finite. No result depends on it.
LR = 1e-5


@dataclass(frozen=True, slots=True)
class Trainer:
    """A network with its optimizer.

    Args:
        model: The network.
        optimizer: Its optimizer.
        create_graph: Whether it needs ``loss.backward(create_graph=True)``.
        share: The part of the batch that SGD-PH takes the Hessian of. If it is not all, that takes a forward pass
            of its own.
    """

    model: nn.Module
    optimizer: Optimizer
    create_graph: bool = False
    share: float = 1.0

    def step(self, batch: tuple[Tensor, Tensor]) -> None:
        """Take one whole training step."""
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

    def sampled_steps(self, count: int) -> list[tuple[int, float]]:
        """Choose steps that stand for a whole Hessian cycle.

        Refreshes are spread evenly over the turns of the cycle; all are taken if there are at most ``count``. With an
        interval, the steps without a refresh are all alike, so one of them stands for the others. It comes after
        every fourth refresh, because these steps count most.

        Args:
            count: How many refreshes to choose.

        Returns:
            For each step, how many were taken before it, and its share of the cycle.
        """
        if not isinstance(self.optimizer, SGDPH):
            return [(0, 1.0)]
        interval: int = self.optimizer.param_groups[0]["hessian_interval"]
        turns = self.optimizer.statistics()["cycle_length"] // interval
        chosen = min(count, turns)
        refreshes = [int((i + 0.5) * turns / chosen) * interval for i in range(chosen)]
        steps = [(step, 1 / (interval * chosen)) for step in refreshes]
        if interval == 1:
            return steps
        fours = [steps[i : i + 4] for i in range(0, chosen, 4)]
        return [step for four in fours for step in (*four, (1, (1 - 1 / interval) / len(fours)))]

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


def _from_package(name: str, *, create_graph: bool) -> Callable[[nn.Module, Tensor], Trainer]:
    def make(net: nn.Module, example: Tensor) -> Trainer:
        kind = getattr(importlib.import_module("pytorch_optimizer"), name)
        return Trainer(net, kind(net.parameters(), lr=LR), create_graph)

    return make


CANDIDATES: Mapping[str, Callable[[nn.Module, Tensor], Trainer]] = {
    "SGD": _sgd,
    "SGD-PH": _sgd_ph(),
    "SGD-PH, rademacher": _sgd_ph(probe="rademacher"),
    "SGD-PH, every 10th step": _sgd_ph(hessian_interval=10),
    "SGD-PH, of a quarter": _sgd_ph(share=0.25),
    "SGD-PH, gauss-newton": _sgd_ph(curvature="gauss-newton"),
    "SGD-PH, gauss-newton of all": _sgd_ph(curvature="gauss-newton", refresh="all"),
    "SGD-PH, gauss-newton of all, every 4th step, of a quarter": _sgd_ph(
        share=0.25, curvature="gauss-newton", refresh="all", hessian_interval=4
    ),
    "SGD-PH, 2×2 blocks": _sgd_ph(blocks="affine"),
    "SGD-PH, gauss-newton, 2×2 blocks": _sgd_ph(curvature="gauss-newton", blocks="affine"),
    "SGD-PH, gauss-newton of all, 2×2 blocks": _sgd_ph(
        curvature="gauss-newton", refresh="all", blocks="affine"
    ),
    "SGD-PH, gauss-newton of all, 2×2 blocks, every 5th step": _sgd_ph(
        curvature="gauss-newton", refresh="all", blocks="affine", hessian_interval=5
    ),
    "SGD-PH, gauss-newton of all, every 5th step": _sgd_ph(
        curvature="gauss-newton", refresh="all", hessian_interval=5
    ),
    "SGD-PH, gradients of all": _sgd_ph(probe="gradient", refresh="all"),
    "SGD-PH, create_graph": _sgd_ph(create_graph=True),
    # pytorch_optimizer 4.1.0. Its source shows that AdaHessian draws its probes as signs of both kinds.
    "AdaHessian": _from_package("AdaHessian", create_graph=True),
    "Apollo": _from_package("ApolloDQN", create_graph=False),
}
"""By name: (network, example input) ↦ trainer. All are compared with the first."""

_NEEDS_PACKAGE = ("AdaHessian", "Apollo")


def available() -> list[str]:
    """List the candidates whose packages are installed."""
    found = importlib.util.find_spec("pytorch_optimizer") is not None
    return [name for name in CANDIDATES if found or name not in _NEEDS_PACKAGE]
