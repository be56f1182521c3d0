"""An optimizer's state as plain data for JSON, and tensors by name; and an optimizer made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sgdph_fx.errors import CheckpointError
from sgdph_fx.optim.hyperparameters import COMMON
from sgdph_fx.optim.saving.saved_state import OF_THIS_PROCESS, sound_parts
from sgdph_fx.optim.sgdph import SGDPH

__all__ = ["joined", "made_of", "split"]


def split(state_dict: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What ``optimizer.state_dict()`` gave, as plain data and tensors.

    Returns:
        Groups and plain values, and the tensors of the state by ``"PLACE.NAME"``. A tensor among the
        hyper-parameters, such as ``lr``, becomes a number.
    """
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for place, own in state_dict["state"].items():
        for name, value in own.items():
            if isinstance(value, Tensor):
                tensors[f"{place}.{name}"] = value
            else:
                plain.setdefault(str(place), {})[name] = value
    groups = [
        {key: value.item() if isinstance(value, Tensor) else value for key, value in group.items()}
        for group in state_dict["param_groups"]
    ]
    return {"param_groups": groups, "state": plain}, tensors


def joined(plain: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The inverse of :func:`split`.

    Raises:
        OptimizerError: if this is no optimizer's state.
    """
    state: dict[int, dict[str, Any]] = {int(place): dict(own) for place, own in plain["state"].items()}
    for key, tensor in tensors.items():
        place, _, name = key.partition(".")
        state.setdefault(int(place), {})[name] = tensor
    saved, sound = sound_parts({"state": state, "param_groups": plain["param_groups"]})
    return {"state": sound, "param_groups": saved}


def made_of(state_dict: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> SGDPH:
    """An optimizer with the saved groups and their options; its state is still to be loaded.

    Args:
        state_dict: As :func:`joined` gives it.
        parameters: The model's, by name.

    Raises:
        CheckpointError: if the groups do not name these parameters.
        OptimizerError: if the options mean nothing.
    """
    saved = state_dict["param_groups"]
    named = [group.get("param_names") for group in saved]
    if not saved or any(names is None or not parameters.keys() >= set(names) for names in named):
        raise CheckpointError(
            "The saved groups do not name the model's parameters, so no optimizer can be made of them. Make it as "
            "you did before, and pass it: `load(path, model, optimizer)`."
        )
    left_out = ("params", *COMMON)
    groups = [
        {
            **{key: value for key, value in group.items() if key not in left_out},
            "params": [parameters[n] for n in names],
        }
        for group, names in zip(saved, named, strict=True)
    ]
    # An older file lacks the later ones, and whether a step may be captured is this process's own affair.
    common = {key: saved[0][key] for key in COMMON if key in saved[0] and key not in OF_THIS_PROCESS}
    return SGDPH(groups, saved[0]["lr"], **common)
