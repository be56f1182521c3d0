"""From what was asked to the model, and from the model to what the library makes of it."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from sgdph_fx.errors import TraceError
from sgdph_fx.trace import ExampleInputs
from sgdph_fx.trace.source import lacks_forward

from .forward import example_inputs, needed_parameters, signature_of
from .guess import guesses
from .load import load_model
from .options import Asked
from .streams import remark
from .weights import load_weights
from .working import same_folder

__all__ = ["SEED", "filled_model", "read_model"]

SEED = 0
Result = TypeVar("Result")


def read_model(asked: Asked, stage: Callable[[nn.Module, ExampleInputs | None], Result]) -> Result:
    """Load and fill the model, and hand it to ``stage`` with its inputs; the same call, the same random numbers.

    Without ``--input``, a model that cannot be traced is run on inputs that it seems to take.

    Raises:
        TraceError: if none of that works; the message says what the model takes.
    """
    with same_folder():
        model = filled_model(asked)
        given = example_inputs(asked.inputs, model, SEED) if asked.inputs else None
        try:
            return stage(model, given)
        except TraceError as error:
            if lacks_forward(model, error.__cause__):
                raise
            if given is None:
                return _on_a_guess(model, stage, error, asked)
            raise TraceError(f"{error} Its forward takes {_what_it_takes(model, asked)}.") from error


def filled_model(asked: Asked) -> nn.Module:
    """The model with its weights; without any, the same call draws the same."""
    torch.manual_seed(SEED)
    model = load_model(asked.model, asked.arguments)
    if asked.weights is not None:
        load_weights(model, asked.weights)
    return model


def _on_a_guess(
    model: nn.Module,
    stage: Callable[[nn.Module, ExampleInputs | None], Result],
    error: TraceError,
    asked: Asked,
) -> Result:
    tried: dict[str, list[str]] = {}
    for guess in guesses(model):
        with contextlib.suppress(TraceError):
            result = stage(model, guess.inputs)
            remark(
                f"Without --input the model cannot be traced, so it was run on {guess.what}, from {guess.source}."
            )
            return result
        tried.setdefault(guess.source, []).append(guess.what)
    guessed = "; ".join(f"{', '.join(of_source)}, from {source}" for source, of_source in tried.items())
    vain = f" It does not run on guessed inputs either ({guessed})." if tried else ""
    raise TraceError(f"{error}{vain} Its forward takes {_what_it_takes(model, asked)}.") from error


def _what_it_takes(model: nn.Module, asked: Asked) -> str:
    """The signature of the model's forward, and a command line that gives all that it needs."""
    needed = [parameter.name for parameter in needed_parameters(model)]
    shapes = [guess.shape for guess in guesses(model) if guess.shape] if len(needed) == 1 else []
    inputs = " ".join(f"--input {name}={shapes[-1] if shapes else 'SHAPE'}" for name in needed)
    example = f", as in: sgdph-convert {shlex.quote(asked.model)} {inputs}" if inputs else ""
    return f"{signature_of(model)}{example}"
