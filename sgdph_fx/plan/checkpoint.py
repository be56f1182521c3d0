"""A whole training in one file: model, plan and optimizer, written atomically and read without running code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from sgdph_fx.checks import accept
from sgdph_fx.errors import CheckpointError
from sgdph_fx.optim import SGDPH
from sgdph_fx.optim.saving.saved_state import loadable
from sgdph_fx.optim.saving.serialized import joined, made_of, split
from sgdph_fx.plan import Plan
from sgdph_fx.plan.json_keys import dumped, loaded
from sgdph_fx.plan.wording import first_few
from sgdph_fx.report.files import replacing
from sgdph_fx.report.prepared import Prepared
from sgdph_fx.trace import undone_on_error
from sgdph_fx.transform.copying import copy_of

__all__ = ["Checkpoint", "load", "save"]

FORMAT = "sgdph-fx checkpoint"
VERSION = "1"
_MODEL, _OPTIMIZER = "model.", "optimizer."


class Checkpoint(NamedTuple):
    """What :func:`load` found.

    Args:
        model: The prepared model, with the saved weights.
        optimizer: The optimizer, with the saved state; None if none was saved.
        plan: The plan that the model was prepared by.
        extra: What else was saved.
    """

    model: nn.Module
    optimizer: SGDPH | None
    plan: Plan
    extra: dict[str, Any]


def save(
    path: Path | str,
    model: Prepared | nn.Module,
    optimizer: SGDPH | None = None,
    *,
    plan: Plan | None = None,
    extra: Mapping[str, Any] | None = None,
    plain: Path | str | None = None,
) -> None:
    """Write model, plan and optimizer into one safetensors file.

    The file replaces an older one once it is complete. It holds numbers and JSON and no pickled objects, so loading
    it runs no code. Random number generators are not saved.

    Args:
        path: The file, ``"run.safetensors"`` say.
        model: What :func:`sgdph_fx.prepare` returned, or its model; that may be wrapped for several processes.
        optimizer: The optimizer of that model.
        plan: The model's plan, ``report.plan``; not needed if ``model`` is what ``prepare`` returned.
        extra: Anything that JSON can hold: the epoch, a scheduler's ``state_dict()``. Tuples come back as lists.
        plain: Where to write the plain model's weights as well, with direction and gain made one weight again.

    Raises:
        CheckpointError: if the plan is missing, or something cannot be put into such a file.
        ModelError: if the model is sharded; ``torch.distributed.checkpoint`` saves those.
        OSError: if the file cannot be written.

    >>> import tempfile
    >>> import torch
    >>> from torch import nn
    >>> from sgdph_fx import SGDPH, load, prepare, save
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    >>> prepared = prepare(net)
    >>> optimizer = SGDPH(prepared.param_groups, lr=0.1)
    >>> file = tempfile.mkdtemp() + "/run.safetensors"
    >>> save(file, prepared, optimizer, extra={"epoch": 3})
    >>> model, optimizer, plan, extra = load(file, net)
    >>> extra
    {'epoch': 3}
    """
    inner, plan = _model_and_plan(model, plan)
    state = inner.state_dict()
    tensors = {f"{_MODEL}{key}": value for key, value in state.items()}
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "plan": plan.to_json(),
        "extra": _as_json(extra or {}, "extra"),
    }
    metadata["trainable"] = json.dumps([name for name, p in inner.named_parameters() if p.requires_grad])
    if optimizer is not None:
        saved, numbers = split(optimizer.state_dict())
        metadata["optimizer"] = _as_json(saved, "the optimizer's groups")
        tensors |= {f"{_OPTIMIZER}{key}": value for key, value in numbers.items()}
    _write(path, tensors, metadata)
    if plain is not None:
        _write(plain, plan.restore_state_dict(state), {"format": "pt"})


def _model_and_plan(model: Prepared | nn.Module, plan: Plan | None) -> tuple[nn.Module, Plan]:
    if isinstance(model, Prepared):
        return accept(model.model).model, plan or model.report.plan
    if plan is None:
        raise CheckpointError(
            "save() needs the plan that the model was prepared by: pass all that `prepare` returned in place of the "
            "model alone, or `plan=report.plan`."
        )
    return accept(model).model, plan


def _as_json(value: Any, what: str) -> str:
    try:
        return dumped(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"JSON cannot hold {what}: {error}. Pass numbers, texts, lists and dicts; tensors as lists."
        ) from error


def _write(path: Path | str, tensors: Mapping[str, Any], metadata: dict[str, str]) -> None:
    others = [key for key, value in tensors.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(
            f"The state_dict holds more than tensors ({first_few(others)}), which safetensors cannot. `torch.save` of "
            "the `state_dict()`s takes it."
        )
    try:
        # Tensors that share memory are saved each by itself: loading copies them into what shares it there.
        dense = torch.contiguous_format
        separate = {key: value.detach().clone(memory_format=dense) for key, value in tensors.items()}
        with replacing(path) as part:
            safetensors.torch.save_file(separate, part, metadata)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} could not be written as safetensors: {error}") from error


def load(
    path: Path | str, model: nn.Module, optimizer: SGDPH | None = None, *, inplace: bool = False
) -> Checkpoint:
    """Read what :func:`save` wrote.

    Args:
        path: The file.
        model: A fresh instance of the plain model, or a prepared one. It is left as it is: what is returned is a copy,
            prepared by the saved plan, and frozen or trainable as it was saved. But if you pass an optimizer, this
            must be its prepared model, which is then filled itself.
        optimizer: The optimizer to fill. Without it one is made of the saved groups, with their options.
        inplace: Prepare and fill ``model`` itself in place of a copy.

    Returns:
        Model, optimizer, plan, and what else was saved. Training goes on with the same bits.

    Raises:
        CheckpointError: if the file cannot be read, is of another kind, or its weights do not fit the model.
        PlanMismatchError: if the plan was made for another model.
        OptimizerError: if the optimizer's state does not fit.
        On any of these, model and optimizer are as they were.
    """
    saved, given = _read(path), accept(model).model
    if given.state_dict().keys() == saved.weights.keys():  # prepared already
        return _filled(saved, given if inplace or optimizer is not None else copy_of(given), optimizer, path)
    if not inplace and optimizer is None:
        return _filled(saved, saved.plan.apply(given), None, path)
    with undone_on_error(given):
        return _filled(saved, saved.plan.apply(given, inplace=True), optimizer, path)


def _filled(saved: _Saved, model: nn.Module, optimizer: SGDPH | None, path: Path | str) -> Checkpoint:
    """The prepared ``model`` and its optimizer with what was saved; all of it fits, or nothing is filled."""
    _require_fitting(model, saved.weights, path)
    if optimizer is not None:
        _require_its_parameters(optimizer, model)
        if saved.optimizer is None:
            raise CheckpointError(f"{path} was saved without an optimizer; load it without one, too.")
        loadable(saved.optimizer, optimizer.param_groups)  # refuses before the model is filled
    elif saved.optimizer is not None:
        optimizer = made_of(saved.optimizer, dict(model.named_parameters()))
    model.load_state_dict(saved.weights)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in saved.trainable)
    if optimizer is not None and saved.optimizer is not None:
        optimizer.load_state_dict(saved.optimizer)
    return Checkpoint(model, optimizer, saved.plan, saved.extra)


class _Saved(NamedTuple):
    weights: dict[str, Tensor]
    trainable: set[str]
    plan: Plan
    optimizer: dict[str, Any] | None
    extra: dict[str, Any]


def _read(path: Path | str) -> _Saved:
    try:
        with safetensors.safe_open(str(path), framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
                raise CheckpointError(
                    f"{path} is no checkpoint of version {VERSION} that `sgdph_fx.save` wrote. Weights alone go "
                    "through `model.load_state_dict`."
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return _parsed(tensors, metadata)
    except (SafetensorError, OSError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} could not be read: {error}") from error


def _parsed(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> _Saved:
    weights, numbers = (
        {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
        for prefix in (_MODEL, _OPTIMIZER)
    )
    try:
        trainable, extra = json.loads(metadata["trainable"]), loaded(metadata["extra"])
        optimizer = loaded(metadata["optimizer"]) if "optimizer" in metadata else None
        state = None if optimizer is None else joined(optimizer, numbers)
    except ValueError as error:
        raise CheckpointError(f"This checkpoint is damaged: {error}. Load another one.") from error
    return _Saved(weights, set(trainable), Plan.from_json(metadata["plan"]), state, extra)


def _require_fitting(model: nn.Module, weights: Mapping[str, Tensor], path: Path | str) -> None:
    own = model.state_dict()
    differences = [f"{key} is missing" for key in own if key not in weights]
    differences += [f"{key} is too many" for key in weights if key not in own]
    differences += [
        f"{key} has shape {tuple(weights[key].shape)}, needed {tuple(value.shape)}"
        for key, value in own.items()
        if key in weights and weights[key].shape != value.shape
    ]
    if differences:
        raise CheckpointError(
            f"The weights in {path} don't fit this {type(model).__name__}: {first_few(differences)}."
        )


def _require_its_parameters(optimizer: SGDPH, model: nn.Module) -> None:
    own = {id(p) for p in model.parameters()}
    if not all(id(p) in own for group in optimizer.param_groups for p in group["params"]):
        raise CheckpointError(
            "The optimizer holds parameters that are not this model's. Pass the prepared model that it was made for, "
            "or no optimizer: then one is made of what was saved."
        )
