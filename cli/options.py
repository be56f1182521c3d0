"""What every command that reads a model is asked in the same way."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click

from sgdph_fx.plan.config import Config
from sgdph_fx.plan.entries import Action, Policy
from sgdph_fx.plan.hint_codes import HINTS

from .inputs import Shape, parse_shape

__all__ = ["NEW_FILE", "Asked", "model_options", "parse_rule", "reading_options", "traceback_option"]

ACTIONS: tuple[Action, ...] = get_args(Action)


@dataclass(frozen=True, slots=True)
class Asked:
    """Which model is meant, and how it is to be read.

    Args:
        model: ``model.py``, ``model.py:name`` or ``package.module:name``.
        shapes: Shapes of example inputs, one for each positional argument; none to trace symbolically.
        weights: A file with weights of the model as it is.
        config: The policy, and rules for single names.
    """

    model: str
    shapes: tuple[Shape, ...]
    weights: Path | None
    config: Config


def parse_rule(text: str) -> tuple[str, Action]:
    """Read ``NAME=ACTION``."""
    name, _, action = text.rpartition("=")
    if not name:
        raise click.BadParameter(f"{text!r} is no rule; write NAME=ACTION, as in features.0=keep.")
    if action not in ACTIONS:
        raise click.BadParameter(f"action {action!r} is not known; choose one of {', '.join(ACTIONS)}.")
    return name, action


class NewFile(click.Path):
    """A file to be written when the work is done: its folder must be there before the work begins."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(super().convert(value, param, ctx))  # type: ignore[arg-type]
        if not path.parent.is_dir():
            raise click.BadParameter(
                f"There is no folder {path.parent} to write {path.name} into; make it first."
            )
        return path


NEW_FILE = NewFile(dir_okay=False, writable=True, path_type=Path)

traceback_option = click.option(
    "--traceback", "with_traceback", is_flag=True, help="Show where an error came from."
)

MODEL = click.argument("model", type=click.Path())
READING = (
    click.option(
        "--input",
        "shapes",
        type=parse_shape,
        multiple=True,
        metavar="SHAPE[:DTYPE]",
        help="Shape of an example input, filled with random values; once for each positional argument.",
    ),
    click.option(
        "--weights",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Weights of the model as it is: safetensors, or a state_dict saved by torch.save.",
    ),
    click.option(
        "--policy",
        type=click.Choice(get_args(Policy)),
        default="see-through",
        show_default=True,
        help="When a convolution counts as normalized.",
    ),
    click.option(
        "--rule",
        "rules",
        type=parse_rule,
        multiple=True,
        metavar="NAME=ACTION",
        help=f"Override for a module or parameter name, or a glob; ACTION: {', '.join(ACTIONS)}.",
    ),
    click.option(
        "--silence",
        type=click.Choice(tuple(HINTS)),
        multiple=True,
        metavar="CODE",
        help="Leave out hints of this code; docs/messages.md lists them.",
    ),
)


def model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command`` the argument MODEL and the options that say how to read it, as one ``asked``."""
    decorated: Callable[..., None] = MODEL(reading_options(command))
    return decorated


def reading_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say how to read a model, as one ``asked`` whose model may yet be empty."""

    @functools.wraps(command)
    def with_asked(**values: Any) -> None:
        command(asked=_asked(values), **values)

    decorated: Callable[..., None] = with_asked
    for option in reversed(READING):
        decorated = option(decorated)
    return decorated


def _asked(values: dict[str, Any]) -> Asked:
    rules: Mapping[str, Action] = dict(values.pop("rules"))
    config = Config(values.pop("policy"), rules, values.pop("silence"))
    return Asked(values.pop("model", ""), values.pop("shapes"), values.pop("weights"), config)
