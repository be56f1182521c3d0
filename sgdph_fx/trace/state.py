"""Looking at a model without leaving a trace of it."""

from __future__ import annotations

import gc
import operator
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sgdph_fx.trace.scripted import is_scripted

__all__ = ["mode", "modes_differ", "reads_of_training", "untouched", "without_collection"]


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Puts back, on leaving, all that running ``model`` may change.

    That is: the train/eval flag of every module, buffers (their identity and their numbers), gradients,
    attributes set during the run, hooks, and the state of torch's, NumPy's and Python's random number generators.
    """
    modules = list(model.modules())
    # TorchScript keeps its own attributes, and lets nobody add or remove one.
    attributes = [(module, _attributes(module)) for module in modules if not is_scripted(module)]
    buffers = [(b, b.clone()) for m in modules for b in m._buffers.values() if b is not None]
    gradients = [(p, p.grad) for m in modules for p in m._parameters.values() if p is not None]
    with torch.random.fork_rng(), _forked_generators():
        try:
            yield
        finally:
            for module, saved in attributes:
                _restore_attributes(module, saved)
            with torch.no_grad():
                for buffer, value in buffers:
                    if _differs(buffer, value):
                        buffer.copy_(value)
            for parameter, gradient in gradients:
                if parameter.grad is not gradient:
                    parameter.grad = gradient


@contextmanager
def _forked_generators() -> Iterator[None]:
    """Puts back the global generators of Python and, if the person's code imported it, of NumPy."""
    numpy = sys.modules.get("numpy")
    python_state, numpy_state = random.getstate(), numpy.random.get_state() if numpy else None
    try:
        yield
    finally:
        random.setstate(python_state)
        if numpy:
            numpy.random.set_state(numpy_state)


@contextmanager
def without_collection() -> Iterator[None]:
    """No search for cyclic garbage meanwhile, which a growing graph sets off again and again, each time over all of it.

    What a graph leaves behind is found by the first search afterwards.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


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
            if module.training is not flag:
                _set_training(module, flag)


def _set_training(module: nn.Module, flag: bool) -> None:
    if "training" in module.__dict__:
        module.__dict__["training"] = flag  # what setting it does, without asking whether it is a parameter
    else:
        module.training = flag  # TorchScript keeps it elsewhere


def modes_differ(model: nn.Module) -> bool:
    """Whether going from training to evaluation changes more in ``model`` than the flag of each module.

    Some classes have a ``train()`` of their own, which may swap layers; and a module that is evaluating while
    the model trains says that the two are not the same to it.
    """
    modules = list(model.modules())
    kinds: set[type[nn.Module]] = {type(module) for module in modules}
    own_switch = any(kind.train is not nn.Module.train or kind.eval is not nn.Module.eval for kind in kinds)
    return own_switch or not all(module.training for module in modules)


@contextmanager
def reads_of_training() -> Iterator[list[nn.Module]]:
    """The modules whose ``training`` flag is read meanwhile, by no matter whom."""
    readers: list[nn.Module] = []

    def read(module: nn.Module) -> bool:
        readers.append(module)
        try:
            return bool(module.__dict__["training"])
        except KeyError:
            raise AttributeError("training") from None

    def write(module: nn.Module, flag: bool) -> None:
        module.__dict__["training"] = flag

    # A property goes before what an instance has under the same name. Plain modules have the flag in their
    # instance only, so that there is nothing on the class to be put back, except by a trace inside a trace.
    before = nn.Module.__dict__.get("training")
    nn.Module.training = property(read, write)  # type: ignore[assignment]
    try:
        yield readers
    finally:
        if before is None:
            del nn.Module.training
        else:
            nn.Module.training = before


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
    if not (current or saved):
        return False
    return list(current) != list(saved) or any(map(operator.is_not, current.values(), saved.values()))


def _differs(buffer: Tensor, value: Tensor) -> bool:
    return not buffer.is_meta and not torch.equal(buffer, value)
