"""A forward pass of its own for the Hessian, that leaves no trace: not in buffers, not in the random numbers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parallel import DistributedDataParallel

__all__ = ["isolated_loss"]


def isolated_loss(loss_fn: Callable[[], Tensor], device: torch.device) -> Tensor:
    """What ``loss_fn`` returns, with its graph.

    Args:
        loss_fn: Calls any modules. Those that this thread calls see copies of their buffers, and random numbers that
            are drawn again afterwards: those of the CPU, of ``device``, and of generators that are their attributes.
            ``DistributedDataParallel`` prepares for no backward.
        device: Where the loss is computed.
    """
    on_device = [] if device.type == "cpu" else [device]
    device_type = "cuda" if device.type == "cpu" else device.type
    lent, handle = _BufferCopies(), None
    try:
        handle = register_module_forward_pre_hook(lent.lend)
        with torch.random.fork_rng(on_device, device_type=device_type), torch.enable_grad():
            return loss_fn()
    finally:
        try:
            lent.give_back()
        finally:
            if handle is not None:
                handle.remove()


class _BufferCopies:
    """Copies of the buffers of every module that is called, until they are given back."""

    def __init__(self) -> None:
        self._thread: int | None = threading.get_ident()
        self._seen: set[nn.Module] = set()
        self._copies: dict[Tensor, Tensor] = {}
        self._kept: list[tuple[dict[str, Any], str, Any]] = []
        self._generators: dict[torch.Generator, Tensor] = {}

    def lend(self, module: nn.Module, args: object) -> None:
        if threading.get_ident() != self._thread:  # another training: what it changes has to stay
            return
        for inner in module.modules():
            if inner not in self._seen:
                self._seen.add(inner)
                self._lend_own(inner)

    def _lend_own(self, module: nn.Module) -> None:
        for name, buffer in module._buffers.items():
            if buffer is not None:
                self._replace(module._buffers, name, self._copy(buffer))
        for value in module.__dict__.values():
            if type(value) is torch.Generator and value not in self._generators:
                self._generators[value] = value.get_state()
        if isinstance(module, DistributedDataParallel):
            self._replace(module.__dict__, "require_backward_grad_sync", False)

    def _copy(self, buffer: Tensor) -> Tensor:
        if buffer not in self._copies:
            self._copies[buffer] = buffer.clone()
        return self._copies[buffer]

    def _replace(self, where: dict[str, Any], name: str, value: Any) -> None:
        self._kept.append((where, name, where[name]))
        where[name] = value

    def give_back(self) -> None:
        self._thread = None  # nothing is lent any more
        for where, name, value in reversed(self._kept):
            where[name] = value
        for generator, state in self._generators.items():
            generator.set_state(state)
