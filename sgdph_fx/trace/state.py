"""Looking at a model without leaving a trace of it."""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

import torch
from torch import nn

from sgdph_fx.trace.snapshot import Snapshot
from sgdph_fx.transform.guard import one_at_a_time

__all__ = ["mode", "modes_differ", "undone_on_error", "untouched", "without_collection"]


@contextmanager
def untouched(model: nn.Module) -> Iterator[Snapshot]:
    """Puts back, on leaving, all that running ``model`` may change.

    That is: parameters and buffers (their identity, layout and numbers), train/eval flags, ``requires_grad`` flags,
    gradients, hooks, attributes and the containers in them, and the state of the random number generators of torch,
    NumPy and Python.

    Args:
        model: The model.

    Yields:
        The snapshot that it is put back from, which can be done in between as well.

    Raises:
        ModelError: if the state of the model cannot be kept; nothing has run then.
        ModelChangedError: if something could not be put back.
    """
    with one_at_a_time(model), _forked_generators():
        snapshot = Snapshot.of(model)
        try:
            with snapshot.watch():
                yield snapshot
        finally:
            snapshot.put_back()


@contextmanager
def undone_on_error(model: nn.Module) -> Iterator[None]:
    """Puts ``model`` back, to the bit, if what is done to it meanwhile ends in an error.

    Raises:
        ModelError, ModelChangedError: as :func:`untouched`.
    """
    snapshot = Snapshot.of(model)
    try:
        with snapshot.watch():
            yield
    except BaseException:
        snapshot.put_back()
        raise


@contextmanager
def _forked_generators() -> Iterator[None]:
    """Puts back the global generators of torch, Python and, if it was imported, NumPy."""
    numpy = sys.modules.get("numpy")
    python_state, numpy_state = random.getstate(), numpy.random.get_state() if numpy else None
    device = torch.accelerator.current_accelerator()
    # To ask a GPU for its state starts it; one that nobody has used has none that could change.
    used = device is not None and (device.type != "cuda" or torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
    devices = range(torch.accelerator.device_count()) if used else ()
    try:
        with torch.random.fork_rng(devices, device_type=device.type if device else "cuda"):
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
    """The model in training or evaluation mode, brought there and back by its own ``train()`` and ``eval()``.

    A model that comes in training mode with some modules in evaluation mode keeps them like that: this is how
    batch norms are frozen for fine-tuning. Where a ``train()`` of its own freezes some, it is called even if the model
    says that it trains: a new model says so before anybody has called it.
    """
    before = model.training
    flags = [(module, module.training) for module in model.modules()]
    kinds = {type(module) for module, _ in flags}
    _switch(model, training, kinds)
    try:
        yield
    finally:
        try:
            _switch(model, before, kinds)
        finally:
            for module, flag in flags:
                if module.training is not flag:
                    _set_training(module, flag)


def _switch(model: nn.Module, training: bool, kinds: Collection[type[nn.Module]]) -> None:
    if model.training is not training:
        with suppress(NotImplementedError):  # an exported program keeps the mode that it was exported in
            model.train() if training else model.eval()
    elif training and _have_own_switch(kinds):
        frozen = [module for module in model.modules() if not module.training]
        model.train()
        for module in frozen:
            _set_training(module, False)


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
    return _have_own_switch(set(map(type, modules))) or not all(module.training for module in modules)


def _have_own_switch(kinds: Collection[type[nn.Module]]) -> bool:
    return any(kind.train is not nn.Module.train or kind.eval is not nn.Module.eval for kind in kinds)
