"""Looking at a model without leaving a trace of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["mode", "untouched"]


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Puts back, on leaving, all that running ``model`` may change.

    That is: the train/eval flag of every module, buffers (their identity and their numbers), gradients,
    attributes set during the run, hooks, and the state of torch's and Python's random number generators.
    """
    attributes = [(module, _attributes(module)) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    python_rng = random.getstate()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python_rng)
            for module, saved in attributes:
                _restore_attributes(module, saved)
            with torch.no_grad():
                for buffer, value in buffers:
                    if _differs(buffer, value):
                        buffer.copy_(value)
            for parameter, gradient in gradients:
                parameter.grad = gradient


@contextmanager
def mode(model: nn.Module, training: bool) -> Iterator[None]:
    """``model.train(training)``, unless the model is in that mode already.

    A model that comes in training mode with some modules in evaluation mode keeps them so: that is how
    batch norms are frozen for fine-tuning.
    """
    flags = [(module, module.training) for module in model.modules()]
    if model.training is not training:
        model.train(training)
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag


_CONTAINERS = ("_buffers", "_parameters", "_modules", "_forward_hooks", "_forward_pre_hooks")


def _attributes(module: nn.Module) -> dict[str, Any]:
    saved = dict(module.__dict__)
    for name in _CONTAINERS:
        saved[name] = dict(saved[name])
    return saved


def _restore_attributes(module: nn.Module, saved: dict[str, Any]) -> None:
    current = module.__dict__
    for name in _CONTAINERS:
        content = saved[name]
        if _changed(current[name], content):
            current[name].clear()
            current[name].update(content)
        saved[name] = current[name]
    if _changed(current, saved):
        current.clear()
        current.update(saved)


def _changed(current: dict[str, Any], saved: dict[str, Any]) -> bool:
    return current.keys() != saved.keys() or any(current[key] is not saved[key] for key in saved)


def _differs(buffer: Tensor, value: Tensor) -> bool:
    return not buffer.is_meta and not torch.equal(buffer, value)
