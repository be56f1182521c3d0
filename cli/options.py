"""The options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click

from sgdph_fx.errors import ConfigError
from sgdph_fx.plan.config import Config
from sgdph_fx.plan.entries import Action, Policy
from sgdph_fx.plan.hint_codes import HINTS

from .errors import explain
from .inputs import Input, parse_input
from .target import parse_argument

__all__ = [
    "FILES",
    "NEW_FILE",
    "NEW_FOLDER",
    "OLD_FILE",
    "PLAN_FILE",
    "Asked",
    "form_options",
    "model_options",
    "parse_rule",
    "reading_options",
    "traceback_option",
]

FILES = ("plan.json", "param_groups.json", "model.safetensors", "report.md", "report.html")
"""What ``--output`` writes."""

ACTIONS: tuple[Action, ...] = get_args(Action)


@dataclass(frozen=True, slots=True)
class Asked:
    """Which model is meant, and how it is to be read.

    Args:
        model: ``model.py``, ``model.py:name``, ``package.module:name``, or either of the latter as a call.
        arguments: Keyword arguments of what makes the model.
        inputs: Example inputs; none to trace symbolically.
        weights: A file with weights of the model as it is.
        config: The policy, and rules for single names.
    """

    model: str
    arguments: Mapping[str, Any]
    inputs: tuple[Input, ...]
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


class PlacePath(click.Path):
    """A path from the folder where the program was started, wherever a model's code goes meanwhile."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The whole path."""
        if not str(value):  # as a variable of a shell that is not set; it would be the current folder
            raise click.BadParameter("The name is empty.", ctx, param)
        return Path(super().convert(value, param, ctx)).absolute()  # type: ignore[arg-type]


class NewFile(PlacePath):
    """A file to be written when the work is done: its folder must be there before the work begins."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The whole path of a file in a folder that exists."""
        path = Path(value)
        if not path.parent.is_dir():
            raise click.BadParameter(
                f"There is no folder {path.parent} to write {path.name} into; make it first."
            )
        return super().convert(value, param, ctx)


NEW_FILE = NewFile(dir_okay=False, writable=True)
NEW_FOLDER = PlacePath(file_okay=False, writable=True)
OLD_FILE = PlacePath(exists=True, dir_okay=False)
# A plan that is missing is refused like one that is damaged, with the same exit code for every command.
PLAN_FILE = PlacePath()

traceback_option = click.option(
    "--traceback", "with_traceback", is_flag=True, help="Show where an error came from."
)

MODEL = click.argument("model", type=click.Path())
READING = (
    click.option(
        "--arg",
        "arguments",
        type=parse_argument,
        multiple=True,
        metavar="NAME=VALUE",
        help="A keyword argument of the function or class that makes the model, as in num_classes=10; repeatable.",
    ),
    click.option(
        "--input",
        "inputs",
        type=parse_input,
        multiple=True,
        metavar="[NAME=]SHAPE[:DTYPE]",
        help="Shape of an example input, filled with random values; once for each argument of the model.",
    ),
    click.option(
        "--weights",
        type=OLD_FILE,
        metavar="FILE",
        help="Weights of the model as it is: safetensors, or a state_dict saved by torch.save.",
    ),
    click.option(
        "--config",
        type=PlacePath(),
        metavar="FILE",
        help="A sgdph.toml or pyproject.toml with policy, rules and silenced hints. Without it, the nearest one in "
        "this folder and those around it.",
    ),
    click.option(
        "--policy",
        type=click.Choice(get_args(Policy)),
        help="When a convolution counts as normalized; see-through, unless a configuration file says otherwise.",
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

    return _with_options(with_asked, READING)


def form_options(**forms: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command flags that exclude each other, as one ``form``: the name of the flag, or None.

    Args:
        forms: The help of each flag, by its name.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_form(**values: Any) -> None:
            chosen = [name for name in forms if values.pop(name)]
            if len(chosen) > 1:
                raise click.UsageError(
                    f"{' and '.join(f'--{name}' for name in chosen)} each say how to print the result; give one of "
                    "them."
                )
            command(form=chosen[0] if chosen else None, **values)

        flags = [click.option(f"--{name}", name, is_flag=True, help=words) for name, words in forms.items()]
        return _with_options(with_form, flags)

    return decorate


def _with_options(command: Callable[..., None], options: Any) -> Callable[..., None]:
    for option in reversed(options):
        command = option(command)
    return command


def _asked(values: dict[str, Any]) -> Asked:
    config = _config(values.pop("config"), values.pop("policy"), values.pop("rules"), values.pop("silence"))
    arguments = dict(values.pop("arguments"))
    return Asked(values.pop("model", ""), arguments, values.pop("inputs"), values.pop("weights"), config)


def _config(
    path: Path | None,
    policy: Policy | None,
    rules: Iterable[tuple[str, Action]],
    silence: Iterable[str],
) -> Config:
    """What a configuration file says, with the options of the command line over it."""
    try:
        found = Config.load() if path is None else Config.from_file(path)
        # A rule that is given again counts last.
        given = dict(rules)
        kept = {pattern: value for pattern, value in found.rules.items() if pattern not in given}
        return Config(policy or found.policy, {**kept, **given}, [*found.silence, *silence])
    except ConfigError as error:
        raise explain(error) from error
