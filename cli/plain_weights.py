"""A checkpoint of the prepared model → weights of the plain model, without the model's code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sgdph_fx.plan.plan import Plan
from sgdph_fx.report.files import replacing
from sgdph_fx.transform.filters import decoupled_names

from .errors import NotWrittenError, WeightsError
from .output import save_tensors, separate
from .plans import saved_plan
from .weights import kind_of, read_state, without_wrapper

__all__ = ["write_plain_weights"]

MOST_NAMED = 5


def write_plain_weights(checkpoint: Path, plan_file: Path, output: Path) -> None:
    """Write the plain weights in ``checkpoint`` to ``output``, which is what it was if anything fails.

    Raises:
        PlanFormatError: if ``plan_file`` holds no plan.
        WeightsError: if ``checkpoint`` holds no weights of the model that the plan was made for.
        NotWrittenError: if ``output`` cannot be written.
    """
    plan = saved_plan(plan_file)
    state = _of_prepared(read_state(checkpoint), plan, checkpoint)
    plain = plan.restore_state_dict(state)
    try:
        with replacing(output) as part:
            _save(plain, part, output)
    except (OSError, RuntimeError) as error:
        raise NotWrittenError(f"{output} could not be written: {error}") from error


def _of_prepared(state: Mapping[str, Any], plan: Plan, path: Path) -> Mapping[str, Any]:
    own = [*plan.frozen, *(row.name for row in plan.parameters)]
    state = without_wrapper(state, own)
    needed = [name for row in plan.decoupled for name in decoupled_names(row.weight)]
    missing = list(dict.fromkeys(name for name in needed if name not in state))
    if missing:
        plain = [row.weight for row in plan.decoupled if row.weight in state]
        hint = " It holds plain weights already." if plain else ""
        raise WeightsError(
            f"{path} is no checkpoint of the model that the plan was made for: {', '.join(missing[:MOST_NAMED])} "
            f"{'is' if len(missing) == 1 else 'are'} missing.{hint}"
        )
    if wrong := next(_unfit(state, needed, plan), None):
        raise WeightsError(
            f"{path} is no checkpoint of the model that the plan was made for: {wrong}. Take the plan.json that was "
            "written for this model."
        )
    return state


def _unfit(state: Mapping[str, Any], names: Sequence[str], plan: Plan) -> Iterator[str]:
    planned = {row.name: row.shape for row in plan.parameters}
    for name in names:
        value = state[name]
        if not isinstance(value, Tensor):
            yield f"{name} is a {type(value).__name__}"
        elif kind_of(value) not in ("real", "complex"):
            yield f"{name} holds {kind_of(value)} numbers"
        elif (shape := tuple(value.shape)) != planned.get(name, shape):
            yield f"{name} has the shape {shape} where the plan has {planned[name]}"


def _save(state: Mapping[str, Any], part: Path, output: Path) -> None:
    if output.suffix == ".safetensors":
        save_tensors(separate(state, "Any other suffix of --output takes them."), part)
    else:
        torch.save(dict(state), part)
