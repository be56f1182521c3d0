"""What a model's forward takes, and example inputs for it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import click
import torch
from torch import Tensor, nn

from .inputs import Input

__all__ = ["example_inputs", "needed_parameters", "parameter_names", "signature_of"]

Parameter = inspect.Parameter
POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def signature_of(model: nn.Module) -> str:
    """The parameters of ``forward`` in parentheses, without annotations."""
    parameters = [p.replace(annotation=Parameter.empty) for p in _parameters(model)]
    return str(inspect.Signature(parameters))


def needed_parameters(model: nn.Module) -> list[Parameter]:
    """The parameters of ``forward`` that have no default."""
    several = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return [p for p in _parameters(model) if p.default is p.empty and p.kind not in several]


def parameter_names(model: nn.Module) -> list[str]:
    """The names of all parameters of ``forward``."""
    return [parameter.name for parameter in _parameters(model)]


def _parameters(model: nn.Module) -> list[Parameter]:
    try:
        return [*inspect.signature(model.forward).parameters.values()]
    except (TypeError, ValueError):
        return []


def example_inputs(
    inputs: Sequence[Input], model: nn.Module, seed: int
) -> tuple[Tensor, ...] | dict[str, Tensor]:
    """Random tensors for the arguments of ``model``, on its device; the same ones for the same seed.

    Returns:
        A tuple, if no input has a name; else all of them by name.

    Raises:
        UsageError: if names and places cannot go together.
    """
    generator = torch.Generator().manual_seed(seed)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    tensors = [_random(given, generator).to(device) for given in inputs]
    if all(given.name is None for given in inputs):
        return tuple(tensors)
    names = _names(inputs, model)
    return dict(zip(names, tensors, strict=True))


def _names(inputs: Sequence[Input], model: nn.Module) -> list[str]:
    given = [one.name for one in inputs if one.name is not None]
    places = iter([p.name for p in _parameters(model) if p.kind in POSITIONAL and p.name not in given])
    names = [one.name or next(places, None) for one in inputs]
    if None in names or len({*names}) < len(names):
        raise click.UsageError(
            f"The model's forward takes {signature_of(model)}: give each --input the name of one argument, "
            "as in --input NAME=SHAPE."
        )
    return [name for name in names if name is not None]


def _random(given: Input, generator: torch.Generator) -> Tensor:
    """Standard normal numbers, or integers 0 and 1, which any embedding looks up."""
    dtype: torch.dtype = getattr(torch, given.dtype)
    if dtype.is_floating_point or dtype.is_complex:
        wide = torch.float32 if dtype.is_floating_point else dtype
        return torch.randn(given.sizes, generator=generator, dtype=wide).to(dtype)
    return torch.randint(0, 2, given.sizes, generator=generator).to(dtype)
