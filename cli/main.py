"""``sgdph-convert``: make a model ready for SGD-PH from the command line."""

from __future__ import annotations

import contextlib
import sys
import traceback
from io import TextIOWrapper
from pathlib import Path
from typing import get_args

import click
import torch
from torch import Tensor, nn

from sgdph_fx.config import Action, Config, Policy
from sgdph_fx.errors import TraceError
from sgdph_fx.pipeline import Prepared, prepare

from .errors import EXIT_CODES, explain
from .guess import guesses
from .inputs import Shape, example_input, parse_shape
from .load import load_model
from .output import FILES, write
from .weights import load_weights

__all__ = ["main"]

PROGRAM = "sgdph-convert"
SEED = 0
ACTIONS: tuple[Action, ...] = get_args(Action)

EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code}  {meaning}" for code, meaning in EXIT_CODES.items())


def parse_rule(text: str) -> tuple[str, Action]:
    """Read ``NAME=ACTION``."""
    name, _, action = text.rpartition("=")
    if not name:
        raise click.BadParameter(f"{text!r} is no rule; write NAME=ACTION, as in features.0=keep.")
    if action not in ACTIONS:
        raise click.BadParameter(f"action {action!r} is not known; choose one of {', '.join(ACTIONS)}.")
    return name, action


@click.command(PROGRAM, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model")
@click.option(
    "--input",
    "shapes",
    type=parse_shape,
    multiple=True,
    metavar="SHAPE[:DTYPE]",
    help="Shape of an example input, filled with random values; once for each positional argument.",
)
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Weights of the model as it is: safetensors, or a state_dict saved by torch.save.",
)
@click.option(
    "--policy",
    type=click.Choice(get_args(Policy)),
    default="see-through",
    show_default=True,
    help="When a convolution counts as normalized.",
)
@click.option(
    "--rule",
    "rules",
    type=parse_rule,
    multiple=True,
    metavar="NAME=ACTION",
    help=f"Override for a module or parameter name, or a glob; ACTION: {', '.join(ACTIONS)}.",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, writable=True, path_type=Path),
    metavar="DIR",
    help=f"Write {', '.join(FILES)} there.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--traceback", "with_traceback", is_flag=True, help="Show where an error came from.")
@click.version_option(package_name="sgdph-fx", prog_name=PROGRAM)
def main(
    model: str,
    shapes: tuple[Shape, ...],
    weights: Path | None,
    policy: Policy,
    rules: tuple[tuple[str, Action], ...],
    output: Path | None,
    as_json: bool,
    with_traceback: bool,
) -> None:
    """Make MODEL ready for SGD with Partial Hessian, and print what gets Hessian treatment and why.

    MODEL is a Python file or an importable module, with :NAME where it defines several models. The model
    is an nn.Module object, a function without required arguments that returns one, or a class made without
    arguments.

    \b
    Examples:
      sgdph-convert model.py
      sgdph-convert model.py:small --input 1,3,32,32 --output converted
      sgdph-convert torchvision.models:vgg19 --weights vgg19.safetensors
      sgdph-convert model.py --policy absorbing --rule 'head.*=first-order'
    """
    _accept_any_letter()
    try:
        # What the model's own code prints must not end up in a report that another program reads.
        with contextlib.redirect_stdout(sys.stderr):
            prepared = convert(model, shapes, weights, Config(policy, dict(rules)))
            if output is not None:
                write(prepared, output)
    except Exception as error:
        if with_traceback:
            click.echo(traceback.format_exc(), err=True, nl=False)
        raise explain(error) from error
    show(prepared, as_json)
    if output is not None:
        click.echo(f"Wrote {', '.join(FILES)} to {output}.", err=True)


def _accept_any_letter() -> None:
    """A pipe may be ASCII where a name or a reason is not: an escaped letter is better than no report."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def convert(target: str, shapes: tuple[Shape, ...], weights: Path | None, config: Config) -> Prepared:
    """Load, fill and prepare the model; the same call gives the same random numbers."""
    torch.manual_seed(SEED)
    model = load_model(target)
    if weights is not None:
        load_weights(model, weights)
    given = _example_inputs(shapes, model) or None
    try:
        return prepare(model, given, config=config, inplace=True)
    except TraceError as error:
        if given is not None:
            raise
        return _prepare_on_a_guess(model, config, error)


def _prepare_on_a_guess(model: nn.Module, config: Config, error: TraceError) -> Prepared:
    """Without --input, a model that cannot be traced is run on inputs that it seems to take."""
    tried = []
    for guess in guesses(model):
        with contextlib.suppress(TraceError):
            prepared = prepare(model, guess.inputs, config=config, inplace=True)
            click.echo(
                f"Without --input the model cannot be traced, so it was run on {guess.what}.", err=True
            )
            return prepared
        tried.append(guess.what)
    if not tried:
        raise error
    raise TraceError(f"{error} It does not run on guessed inputs either ({'; '.join(tried)}).") from error


def _example_inputs(shapes: tuple[Shape, ...], model: nn.Module) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(SEED)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return tuple(example_input(shape, generator).to(device) for shape in shapes)


def show(prepared: Prepared, as_json: bool) -> None:
    """Print the report on standard output."""
    if as_json:
        click.echo(prepared.report.to_json(), nl=False)
    else:
        prepared.report.show()


if __name__ == "__main__":
    main(prog_name=PROGRAM)
