"""Example inputs in whatever form they come, as one thing: a function that runs the model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sgdph_fx.errors import TraceError

__all__ = ["ExampleInputs", "Run", "runner"]

ExampleInputs = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any] | Callable[[nn.Module], Any]
Run = Callable[[nn.Module], Any]


def runner(example_inputs: ExampleInputs) -> Run:
    """What runs a model on ``example_inputs``.

    Args:
        example_inputs: A tensor (the one argument), a tuple of positional arguments, a mapping of keyword
            arguments, or a callable that runs the model in its own way; it is passed the model, if it
            takes an argument. Tensors are moved to no device: give them where the model is.

    Raises:
        TraceError: for anything else.
    """
    if isinstance(example_inputs, Tensor):
        return _without_gradients(lambda model: model(example_inputs))
    if isinstance(example_inputs, Mapping):
        return _without_gradients(lambda model: model(**example_inputs))
    if isinstance(example_inputs, tuple):
        return _without_gradients(lambda model: model(*example_inputs))
    if isinstance(example_inputs, list):
        return _without_gradients(lambda model: model(example_inputs))
    if callable(example_inputs):
        run: Callable[..., Any] = example_inputs
        return run if _takes_an_argument(run) else lambda model: run()
    raise TraceError(
        f"example_inputs is a {type(example_inputs).__name__}; pass a tensor, a tuple of positional arguments, "
        "a dict of keyword arguments, or a callable that takes the model and runs it."
    )


def _takes_an_argument(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        return False
    return True


def _without_gradients(run: Run) -> Run:
    def quietly(model: nn.Module) -> Any:
        with torch.no_grad():
            return run(model)

    return quietly
