"""The training steps that are compared: an optimizer, and the form in which its steps run."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from sgdph_fx import SGDPH, CapturedStep, compile_between_refreshes, prepare
from sgdph_fx.optim.capture.cuda_graphs import Recorder

__all__ = ["INTERVAL", "LOOPS", "Loop", "LoopKind", "is_available"]

Batch = tuple[Tensor, Tensor]

# So small that hundreds of steps on one batch of noise stay finite. No result depends on it.
LR = 1e-5
# One optimizer gives both rows of SGD-PH: steps that all refresh a Hessian, and those where every tenth does.
INTERVAL = 10


@dataclass(frozen=True, slots=True)
class Loop:
    """Training steps on one batch.

    Args:
        step: Take one step.
        optimizer: What takes it.
        holds: What a recorded step reads, whose memory must stay its own.
    """

    step: Callable[[], object]
    optimizer: Optimizer
    holds: object = None

    def go_to(self, step: int) -> None:
        """Make the next step the one after ``step`` steps. Only SGD-PH counts."""
        if isinstance(self.optimizer, SGDPH):
            for group in self.optimizer.param_groups:
                group["step"] = step

    @property
    def cycle(self) -> int:
        """How many parameters take turns in a Hessian cycle; 1 for an optimizer without one."""
        groups = self.optimizer.param_groups
        second_order = sum(len(group["params"]) for group in groups if group.get("order") == 2)
        return second_order or 1


@dataclass(frozen=True, slots=True)
class LoopKind:
    """One entry of the table of loops.

    Args:
        optimizer: The optimizer's name in the results.
        form: ``"eager"``, ``"captured"`` or ``"compiled"``.
        make: Build the loop from a network and a batch on one device.
        part: The choice of ``--what`` that it belongs to.
    """

    optimizer: str
    form: str
    make: Callable[[nn.Module, Batch], Loop]
    part: str


def _loss(model: Callable[[Tensor], Tensor], batch: Batch, *, cached: bool = True) -> Tensor:
    images, labels = batch
    with torch.autocast(images.device.type, torch.bfloat16, cache_enabled=cached):
        return cross_entropy(model(images), labels)


def _first_order(
    optimizer: Optimizer, model: Callable[[Tensor], Tensor], batch: Batch, *, cached: bool = True
) -> Callable[[], Tensor]:
    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = _loss(model, batch, cached=cached)
        torch.autograd.backward(loss)
        optimizer.step()
        return loss.detach()

    return step


def _sgd_optimizer(net: nn.Module) -> Optimizer:
    return torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9, weight_decay=5e-4)


def _sgd(net: nn.Module, batch: Batch) -> Loop:
    optimizer = _sgd_optimizer(net)
    return Loop(_first_order(optimizer, net, batch), optimizer)


def _sgd_captured(net: nn.Module, batch: Batch) -> Loop:
    optimizer = _sgd_optimizer(net)
    step = _first_order(optimizer, net, batch, cached=False)
    return Loop(_as_graph(step, batch[0].device), optimizer, holds=(net, batch))


def _as_graph(step: Callable[[], Tensor], device: torch.device) -> Callable[[], object]:
    """Record a step as a CUDA graph; on a CPU, where tests run this, it stays as it is."""
    if device.type == "cpu":
        return step
    recorder = Recorder(device)
    for _ in range(3):
        recorder.warm_up(step)
    return recorder.record(step).replay


def _sgd_compiled(net: nn.Module, batch: Batch) -> Loop:
    optimizer = _sgd_optimizer(net)
    return Loop(_first_order(optimizer, torch.compile(net), batch), optimizer)


def _adamw(net: nn.Module, batch: Batch) -> Loop:
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR)
    return Loop(_first_order(optimizer, net, batch), optimizer)


def _adahessian(net: nn.Module, batch: Batch) -> Loop:
    optimizer = importlib.import_module("pytorch_optimizer").AdaHessian(net.parameters(), lr=LR)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        # The fused kernels of attention cannot be differentiated twice.
        with sdpa_kernel(SDPBackend.MATH):
            torch.autograd.backward(_loss(net, batch), create_graph=True)
            optimizer.step()

    return Loop(step, optimizer)


def _prepared(net: nn.Module, batch: Batch) -> tuple[nn.Module, SGDPH]:
    model, groups, _ = prepare(net, batch[0][:2], inplace=True)
    return model, SGDPH(groups, lr=LR, weight_decay=5e-4, hessian_interval=INTERVAL)


def _sgd_ph(net: nn.Module, batch: Batch) -> Loop:
    model, optimizer = _prepared(net, batch)
    return _refreshing(optimizer, model, batch)


def _sgd_ph_compiled(net: nn.Module, batch: Batch) -> Loop:
    model, optimizer = _prepared(net, batch)
    return _refreshing(optimizer, compile_between_refreshes(model, optimizer), batch)


def _refreshing(optimizer: SGDPH, model: Callable[[Tensor], Tensor], batch: Batch) -> Loop:
    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        optimizer.backward(_loss(model, batch))
        optimizer.step()

    return Loop(step, optimizer)


def _sgd_ph_captured(net: nn.Module, batch: Batch) -> Loop:
    model, optimizer = _prepared(net, batch)
    captured = CapturedStep(model, cross_entropy, optimizer, autocast=torch.bfloat16)
    return Loop(lambda: captured(*batch), optimizer)


LOOPS: tuple[LoopKind, ...] = (
    LoopKind("SGD", "eager", _sgd, "main"),
    LoopKind("SGD", "captured", _sgd_captured, "main"),
    LoopKind("SGD-PH", "eager", _sgd_ph, "main"),
    LoopKind("SGD-PH", "captured", _sgd_ph_captured, "main"),
    LoopKind("SGD", "compiled", _sgd_compiled, "compiled"),
    LoopKind("SGD-PH", "compiled", _sgd_ph_compiled, "compiled"),
    LoopKind("AdamW", "eager", _adamw, "adamw"),
    LoopKind("AdaHessian", "eager", _adahessian, "adahessian"),
)
"""In the order of the measurement. SGD's loops come before those that are compared with them."""


def is_available(kind: LoopKind) -> bool:
    """Whether the package that a loop needs is installed."""
    return kind.optimizer != "AdaHessian" or importlib.util.find_spec("pytorch_optimizer") is not None
