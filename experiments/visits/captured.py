"""One training step of any method, as a CUDA graph where there is a GPU, with a learning rate that may change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from experiments.training.methods import Setup
from experiments.training.mixed_optimizers import CombinedOptimizer, OptimizerLike
from experiments.training.muon_channelwise import MuonChannelwise
from sgdph_fx import SGDPH, CapturedStep
from sgdph_fx.optim.capture.cuda_graphs import Recorder, Recording

__all__ = ["DeviceSchedule", "GraphStep", "Step", "make_step"]

Loss = Callable[[Any, Any], Tensor]
WARM_UP = 3
# They decide on the host, so only the forward and the backward pass are captured.
NOT_CAPTURED = ("SOAP",)


class Step(Protocol):
    """A training step."""

    def set_factor(self, factor: float) -> None:
        """Multiply all learning rates of the following steps by ``factor``."""

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Train on a batch, and give its loss, one number on the device without a graph."""


class DeviceSchedule:
    """Steps of an optimizer multiplied by a factor on the device, which a CUDA graph reads when it is replayed.

    It equals a scheduler's factor on ``lr`` for every optimizer whose step is proportional to ``lr``, decay included,
    and whose state does not depend on it. SGD, AdamW, Muon and SOAP are so.

    Args:
        optimizer: The optimizer.
        parameters: All tensors that it steps.
    """

    def __init__(self, optimizer: OptimizerLike, parameters: Sequence[Tensor]) -> None:
        self._optimizer, self._parameters = optimizer, [p.detach() for p in parameters]
        self._factor = torch.ones((), device=self._parameters[0].device)

    def set_factor(self, factor: float) -> None:
        """Set the factor of the following steps."""
        self._factor.fill_(factor)

    @torch.no_grad()
    def step(self) -> None:
        """Take one step."""
        before = [p.clone() for p in self._parameters]
        self._optimizer.step()
        torch._foreach_sub_(self._parameters, before)
        torch._foreach_mul_(self._parameters, self._factor)
        torch._foreach_add_(self._parameters, before)


class GraphStep:
    """Forward, backward and step of an ordinary optimizer, replayed as one CUDA graph; a plain loop on a CPU.

    Args:
        model: The model, on its device.
        loss_fn: ``loss_fn(model(inputs), targets)``, one number.
        schedule: The optimizer with its factor.
        autocast: Precision of the forward pass; None for the parameters' own.
        whole: Whether the optimizer's step is captured too.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Loss,
        schedule: DeviceSchedule,
        autocast: torch.dtype | None,
        whole: bool,
    ) -> None:
        self._model, self._loss_fn, self._schedule = model, loss_fn, schedule
        self._autocast, self._whole = autocast, whole
        self._device = next(model.parameters()).device
        self._recorder = Recorder(self._device)
        self._recording: Recording | None = None
        self._static: tuple[Tensor, Tensor] | None = None
        self._taken = 0

    def set_factor(self, factor: float) -> None:
        """Multiply the learning rate of the following steps by ``factor``."""
        self._schedule.set_factor(factor)

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Train on a batch of the first one's shape, and give its loss."""
        self._taken += 1
        loss = self._losses(inputs, targets)
        if not self._whole:
            self._schedule.step()
        return loss

    def _losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        if not self._uses_graphs():
            return self._run(inputs, targets)
        if self._static is None:
            self._static = inputs.clone(), targets.clone()
        places = self._static
        for place, own in zip(places, (inputs, targets), strict=True):
            place.copy_(own)
        if self._taken <= WARM_UP:
            return self._recorder.warm_up(lambda: self._run(*places))
        if self._recording is None:
            self._recording = self._recorder.record(lambda: self._run(*places))
        self._recording.replay()
        return self._recording.result.clone()

    def _uses_graphs(self) -> bool:
        return self._device.type == "cuda"

    def _run(self, inputs: Tensor, targets: Tensor) -> Tensor:
        for parameter in self._model.parameters():
            parameter.grad = None
        enabled = self._autocast is not None
        with torch.autocast(self._device.type, self._autocast, enabled=enabled, cache_enabled=False):
            loss = self._loss_fn(self._model(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._whole:
            self._schedule.step()
        return loss.detach()


class SecondOrderStep:
    """:class:`sgdph_fx.CapturedStep`, with other optimizers beside SGDPH if there are any.

    Args:
        step: The step.
        optimizer: Its SGDPH.
        others: The optimizers that step with it.
    """

    def __init__(self, step: CapturedStep, optimizer: SGDPH, others: DeviceSchedule | None) -> None:
        self._step, self._optimizer, self._others = step, optimizer, others
        self._lrs = [float(group["lr"]) for group in optimizer.param_groups]

    def set_factor(self, factor: float) -> None:
        """Multiply all learning rates of the following steps by ``factor``."""
        for group, lr in zip(self._optimizer.param_groups, self._lrs, strict=True):
            group["lr"] = lr * factor
        if self._others is not None:
            self._others.set_factor(factor)

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Train on a batch, and give its loss."""
        return self._step(inputs, targets)


def make_step(setup: Setup, loss_fn: Loss, autocast: torch.dtype | None) -> Step:
    """Make the step of a method.

    Args:
        setup: The network and its optimizer.
        loss_fn: ``loss_fn(model(inputs), targets)``, one number.
        autocast: Precision of the forward pass; None for the parameters' own.
    """
    optimizer = setup.optimizer
    if isinstance(optimizer, SGDPH):
        return SecondOrderStep(
            CapturedStep(setup.model, loss_fn, optimizer, autocast=autocast), optimizer, None
        )
    if isinstance(optimizer, MuonChannelwise):
        others = _scheduled(optimizer.others)
        step = CapturedStep(setup.model, loss_fn, optimizer.sgdph, autocast=autocast, before_step=others.step)
        return SecondOrderStep(step, optimizer.sgdph, others)
    whole = type(optimizer).__name__ not in NOT_CAPTURED
    return GraphStep(setup.model, loss_fn, _scheduled(optimizer), autocast, whole)


def _scheduled(optimizer: OptimizerLike) -> DeviceSchedule:
    parameters: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
    if parameters[0].device.type == "cuda":
        for own in optimizer.optimizers if isinstance(optimizer, CombinedOptimizer) else (optimizer,):
            for group in own.param_groups:
                if "capturable" in group:
                    group["capturable"] = True
    return DeviceSchedule(optimizer, parameters)
