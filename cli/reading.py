"""From what was asked to the model, and from the model to what the library makes of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar

import click
import torch
from torch import Tensor, nn

from sgdph_fx.errors import TraceError
from sgdph_fx.trace import ExampleInputs

from .guess import guesses
from .inputs import Shape, example_input
from .load import load_model
from .options import Asked
from .weights import load_weights

__all__ = ["filled_model", "read_model"]

SEED = 0
Result = TypeVar("Result")


def read_model(asked: Asked, stage: Callable[[nn.Module, ExampleInputs | None], Result]) -> Result:
    """Load and fill the model, and hand it to ``stage`` with its inputs; the same call, the same random numbers.

    Without ``--input``, a model that cannot be traced is run on inputs that it seems to take.
    """
    model = filled_model(asked)
    given = _example_inputs(asked.shapes, model) or None
    try:
        return stage(model, given)
    except TraceError as error:
        if given is not None:
            raise
        return _on_a_guess(model, stage, error)


def filled_model(asked: Asked) -> nn.Module:
    """The model with its weights; without any, the same call draws the same."""
    torch.manual_seed(SEED)
    model = load_model(asked.model)
    if asked.weights is not None:
        load_weights(model, asked.weights)
    return model


def _on_a_guess(
    model: nn.Module, stage: Callable[[nn.Module, ExampleInputs | None], Result], error: TraceError
) -> Result:
    tried: dict[str, list[str]] = {}
    for guess in guesses(model):
        with contextlib.suppress(TraceError):
            result = stage(model, guess.inputs)
            click.echo(
                f"Without --input the model cannot be traced, so it was run on {guess.what}, from {guess.source}.",
                err=True,
            )
            return result
        tried.setdefault(guess.source, []).append(guess.what)
    if not tried:
        raise error
    guessed = "; ".join(f"{', '.join(of_source)}, from {source}" for source, of_source in tried.items())
    raise TraceError(f"{error} It does not run on guessed inputs either ({guessed}).") from error


def _example_inputs(shapes: tuple[Shape, ...], model: nn.Module) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(SEED)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return tuple(example_input(shape, generator).to(device) for shape in shapes)
