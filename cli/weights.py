"""Load saved weights into the model, or say why they do not fit."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from sgdph_fx.plan.wording import first_few

from .errors import WeightsError
from .file_set import finish_interrupted

__all__ = ["kind_of", "load_weights", "read_state", "read_tensors", "without_wrapper"]

# Keys under which training scripts save the weights beside an epoch and an optimizer's state.
NESTS = ("state_dict", "model_state_dict", "model")
# What torch's own wrappers put before each key: DataParallel and its kin, and torch.compile.
WRAPPERS = ("module.", "_orig_mod.")
SHOWN = 5


def load_weights(model: nn.Module, path: Path) -> None:
    """Load ``path``, safetensors or what ``torch.save`` wrote, into ``model``; nothing may be left over.

    Raises:
        WeightsError: if the file cannot be read as tensors alone, or if a key is missing, unexpected, of
            another shape or of another kind of numbers, or if the model takes none.
    """
    absent = [name for name, tensor in model.state_dict().items() if getattr(tensor, "is_meta", False)]
    if absent:
        raise WeightsError(
            f"The model is on the meta device, which takes no weights ({first_few(absent)}). Build it on another one."
        )
    state = without_wrapper(read_state(path), model.state_dict())
    differences = [*_differences(state, model)]
    if differences:
        raise WeightsError(
            f"The weights in {path} don't fit the model: {'; '.join(differences)}.{_hint(state)}"
        )
    try:
        model.load_state_dict(state)
    except Exception as error:
        raise WeightsError(
            f"The weights in {path} fit by name and shape, but not to be loaded: {error}"
        ) from error


def read_state(path: Path) -> Mapping[str, Any]:
    """The ``state_dict`` in a file, alone or nested in a training script's checkpoint.

    Raises:
        WeightsError: if the file cannot be read as tensors alone, or holds something else.
    """
    content = read_tensors(path, "save model.state_dict(), not the model itself")
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"{path} holds a {type(content).__name__}, no state_dict: save model.state_dict()."
        )
    state = next((content[key] for key in NESTS if isinstance(content.get(key), Mapping)), content)
    strange = [key for key in state if not isinstance(key, str)]
    if strange:
        raise WeightsError(
            f"{path} holds no state_dict: its keys are names, but here is {strange[0]!r}. Save model.state_dict()."
        )
    return state


def read_tensors(path: Path, instead: str) -> Any:
    """What ``path`` holds, safetensors or from ``torch.save``, read without running any code in it.

    Args:
        path: The file.
        instead: How to save it so that it can be read.

    Raises:
        WeightsError: if it cannot be read as tensors alone.
    """
    finish_interrupted(path.parent)
    is_safetensors = path.suffix == ".safetensors"
    try:
        with warnings.catch_warnings(
            action="ignore"
        ):  # what torch thinks of a foreign file is not for its owner
            if is_safetensors:
                return safetensors.torch.load_file(path)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than tensors, or is no file of torch.save. Only tensors are loaded, as "
            f"anything else could run code: {instead}."
        ) from error
    # A damaged file makes torch and safetensors fail in any way at all.
    except Exception as error:
        kind = "safetensors" if is_safetensors else "torch.save"
        other = _other_archive(path)
        why = f"it is {other}; {instead}" if other else str(error) or "it ends too early"
        raise WeightsError(f"{path} could not be read as a file of {kind}: {why}") from error


def _other_archive(path: Path) -> str:
    """What a file of torch that holds a program is, with an article; empty for any other file."""
    with suppress(Exception), zipfile.ZipFile(path) as archive:  # a damaged one fails in any way at all
        inside = {name.rpartition("/")[2] for name in archive.namelist()}
        if "archive_format" in inside:
            return "an exported program"
        if "constants.pkl" in inside:
            return "a TorchScript archive"
    return ""


def without_wrapper(state: Mapping[str, Any], expected: Collection[str]) -> Mapping[str, Any]:
    """``state`` under the keys that a model has inside ``DataParallel`` and ``torch.compile``, if saved around them.

    Args:
        state: As read.
        expected: Keys that the model itself has: a state with one of them was saved from it.
    """
    while state and not any(key in state for key in expected):
        prefix = next((p for p in WRAPPERS if all(key.startswith(p) for key in state)), None)
        if prefix is None:
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _differences(state: Mapping[str, Any], model: nn.Module) -> Iterable[str]:
    expected = model.state_dict()
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    both = [(key, value, state[key]) for key, value in expected.items() if key in state]
    reshaped = [
        f"{key} is {_shape(saved)} where the model has {_shape(value)}"
        for key, value, saved in both
        if _shape(saved) != _shape(value)
    ]
    # Copied without a word, complex numbers would lose a part, and integers are no weights of a network.
    of_other_kind = [
        f"{key} holds {kind_of(saved)} numbers where the model has {kind_of(value)} ones"
        for key, value, saved in both
        if isinstance(value, Tensor) and isinstance(saved, Tensor) and kind_of(saved) != kind_of(value)
    ]
    if missing:
        yield f"missing {first_few(missing, SHOWN)}"
    if unexpected:
        yield f"unexpected {first_few(unexpected, SHOWN)}"
    if reshaped:
        yield first_few(reshaped, SHOWN)
    if of_other_kind:
        yield first_few(of_other_kind, SHOWN)


def kind_of(tensor: Tensor) -> str:
    """Which kind of numbers a tensor holds, of whatever size."""
    if tensor.dtype == torch.bool:
        return "boolean"
    return "complex" if tensor.is_complex() else "real" if tensor.is_floating_point() else "integer"


def _shape(value: Any) -> str:
    return "x".join(map(str, value.shape)) or "scalar" if isinstance(value, Tensor) else type(value).__name__


def _hint(state: Mapping[str, Any]) -> str:
    if any(key.endswith("direction") for key in state):
        return " These look like converted weights: `sgdph-convert restore` makes them plain again."
    nested = [key for key, value in state.items() if isinstance(value, Mapping) and value]
    if nested:
        return f" What {' and '.join(nested)} holds is not looked into: save it alone, or under {' or '.join(NESTS)}."
    return ""
