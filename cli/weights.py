"""Load saved weights into the model, or say why they don't fit."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from sgdph_fx.plan.wording import first_few

from .errors import WeightsError

__all__ = ["load_weights", "read_state", "without_wrapper"]

# Keys under which training scripts save the weights beside an epoch and an optimizer's state.
NESTS = ("state_dict", "model_state_dict", "model")
DATA_PARALLEL_PREFIX = "module."
SHOWN = 5


def load_weights(model: nn.Module, path: Path) -> None:
    """Load ``path``, safetensors or what ``torch.save`` wrote, into ``model``; nothing may be left over.

    Raises:
        WeightsError: if the file cannot be read as tensors alone, or if a key is missing, unexpected or of
            another shape.
    """
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
        WeightsError: if the file cannot be read as tensors alone.
    """
    is_safetensors = path.suffix == ".safetensors"
    read: Callable[[Path], Any] = safetensors.torch.load_file if is_safetensors else _torch_load
    try:
        content = read(path)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than tensors, or is no file of torch.save. Only tensors are loaded, as "
            "anything else could run code: save model.state_dict(), not the model itself."
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        kind = "safetensors" if is_safetensors else "torch.save"
        raise WeightsError(
            f"{path} could not be read as a file of {kind}: {str(error) or 'it ends too early'}"
        ) from error
    return _tensors(content, path)


def _torch_load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _tensors(content: Any, path: Path) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"{path} holds a {type(content).__name__}, no state_dict: save model.state_dict()."
        )
    nested = [content[key] for key in NESTS if isinstance(content.get(key), Mapping)]
    return nested[0] if nested else content


def without_wrapper(state: Mapping[str, Any], expected: Collection[str]) -> Mapping[str, Any]:
    """``state`` under the keys that a model has inside ``DataParallel``, if it was saved around it.

    Args:
        state: As read.
        expected: Keys that the model itself has: a state that has nothing else was saved from it.
    """
    wrapped = state.keys() - expected and all(key.startswith(DATA_PARALLEL_PREFIX) for key in state)
    return {key.removeprefix(DATA_PARALLEL_PREFIX): state[key] for key in state} if wrapped else state


def _differences(state: Mapping[str, Any], model: nn.Module) -> Iterable[str]:
    expected = model.state_dict()
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    reshaped = [
        f"{key} is {_shape(state[key])} where the model has {_shape(value)}"
        for key, value in expected.items()
        if key in state and _shape(state[key]) != _shape(value)
    ]
    if missing:
        yield f"missing {first_few(missing, SHOWN)}"
    if unexpected:
        yield f"unexpected {first_few(unexpected, SHOWN)}"
    if reshaped:
        yield first_few(reshaped, SHOWN)


def _shape(value: Any) -> str:
    return "x".join(map(str, value.shape)) or "scalar" if isinstance(value, Tensor) else type(value).__name__


def _hint(state: Mapping[str, Any]) -> str:
    if any(key.endswith("direction") for key in state):
        return " These look like converted weights: `sgdph-convert restore` makes them plain again."
    return ""
