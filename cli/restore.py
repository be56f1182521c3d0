"""``sgdph-convert restore``: a checkpoint of the prepared model as one of the plain model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import safetensors.torch
import torch

from sgdph_fx.plan.plan import Plan
from sgdph_fx.transform.filters import decoupled_names

from .errors import CliError, WeightsError
from .options import NEW_FILE, traceback_option
from .output import separate
from .plans import saved_plan
from .progress import progress
from .weights import read_state, without_wrapper
from .working import working

__all__ = ["restore"]


@click.command("restore")
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--plan",
    "plan_file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The plan that the model was prepared by: plan.json of --output.",
)
@click.option(
    "--output",
    required=True,
    type=NEW_FILE,
    metavar="FILE",
    help="Where to write the weights: .safetensors, or any other name for torch.save.",
)
@traceback_option
def restore(checkpoint: Path, plan_file: Path, output: Path, with_traceback: bool) -> None:
    """Turn CHECKPOINT, saved while the prepared model trained, into weights of the plain model.

    Each direction and gain becomes one weight again, under its original name; all else stays as it is. The
    model's code is not needed.

    \b
    Example:
      sgdph-convert restore epoch90.pt --plan converted/plan.json --output plain.safetensors
    """
    with working(with_traceback), progress("Restoring"):
        plan = saved_plan(plan_file)
        state = _of_prepared(read_state(checkpoint), plan, checkpoint)
        _save(plan.restore_state_dict(state), output)
    click.echo(f"Wrote {output}.", err=True)


def _of_prepared(state: Mapping[str, Any], plan: Plan, path: Path) -> Mapping[str, Any]:
    state = without_wrapper(state, ())
    needed = [name for row in plan.decoupled for name in decoupled_names(row.weight)]
    missing = list(dict.fromkeys(name for name in needed if name not in state))
    if missing:
        plain = [row.weight for row in plan.decoupled if row.weight in state]
        hint = " It holds plain weights already." if plain else ""
        raise WeightsError(
            f"{path} is no checkpoint of the model that the plan was made for: {', '.join(missing[:5])} "
            f"{'is' if len(missing) == 1 else 'are'} missing.{hint}"
        )
    planned = {row.name: row.shape for row in plan.parameters}
    for name in needed:
        shape = tuple(state[name].shape)
        if shape != planned.get(name, shape):
            raise WeightsError(
                f"{path} is no checkpoint of the model that the plan was made for: {name} has the shape {shape} "
                f"where the plan has {planned[name]}. Take the plan.json that was written for this model."
            )
    return state


def _save(state: Mapping[str, Any], path: Path) -> None:
    try:
        if path.suffix == ".safetensors":
            safetensors.torch.save_file(separate(state, "Any other suffix of --output takes them."), path)
        else:
            torch.save(dict(state), path)
    except (OSError, RuntimeError) as error:
        raise CliError(f"{path} could not be written: {error}") from error
