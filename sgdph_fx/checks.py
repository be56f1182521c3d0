"""What is refused before anything changes: models that cannot be read, prepared or trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy

from sgdph_fx.errors import (
    ModelError,
    NonFiniteWeightError,
    NotAModuleError,
    NothingToTrainError,
    OptimizerError,
    ScriptedModelError,
    StaleOptimizerError,
    UninitializedModelError,
)
from sgdph_fx.plan.entries import Hint
from sgdph_fx.plan.wording import first_few
from sgdph_fx.trace.memory import components

__all__ = ["Subject", "accept", "check_optimizer", "require_preparable"]


@dataclass(frozen=True, slots=True)
class Subject:
    """The module to treat, out of its wrappers, and a hint on each wrapper that was taken off."""

    model: nn.Module
    hints: tuple[Hint, ...] = ()


def accept(model: object, *, inplace: bool = False) -> Subject:
    """Take ``model`` out of its wrappers, if it is one that can be read.

    Args:
        model: What you passed as a model.
        inplace: Whether it is going to be rewritten itself.

    Raises:
        ModelError: if it is no module, is TorchScript, is sharded, or has a lazy layer without a shape.
    """
    outer = _require_module(model)
    inner = _unwrapped(outer, inplace)
    if inner is outer:
        return Subject(inner)
    message = (
        f"the {type(inner).__name__} inside {type(outer).__name__} was taken, and is what is returned; wrap it "
        "again to train"
    )
    return Subject(inner, (Hint("unwrapped", "", message),))


def require_preparable(model: nn.Module) -> None:
    """Refuse a model that has nothing to train, or weights that cannot be trained from.

    Raises:
        NothingToTrainError: if no parameter requires a gradient.
        NonFiniteWeightError: if parameters hold NaN or infinity; the message names them.
    """
    _require_trainable(model)
    _require_finite(model)


def _require_module(model: object) -> nn.Module:
    """``model``, if it is an ``nn.Module`` that can be read.

    Raises:
        NotAModuleError: if it is no module; a class that was passed in place of an instance is named.
        ScriptedModelError: if it is TorchScript.
        UninitializedModelError: if a lazy module in it has not seen an input.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise ScriptedModelError(
            f"This {type(model).__name__} is TorchScript ({model.original_name}), whose weights cannot be "
            "rewritten. Prepare the module that it was scripted from, and script after training, from `restore(model)`."
        )
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise NotAModuleError(
            f"{model.__name__} is a class, not a model: pass an instance, `{model.__name__}(...)`."
        )
    if not isinstance(model, nn.Module):
        raise NotAModuleError(f"A torch.nn.Module is needed; this is a {type(model).__name__}.")
    for owner, module in model.named_modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                _require_readable(f"{owner or 'The model'} ({type(module).__name__})", name, tensor)
    return model


def _require_readable(owner: str, name: str, tensor: Tensor) -> None:
    if is_lazy(tensor):
        raise UninitializedModelError(
            f"{owner} is lazy and has no shape yet: its {name} is uninitialized. Run the model once on an input, then "
            "prepare it."
        )
    if tensor.is_inference():
        raise ModelError(
            f"{owner} was made under torch.inference_mode, so its {name} can never be trained. Build and load the "
            "model outside of it."
        )
    if "FakeTensor" in {kind.__name__ for kind in type(tensor).__mro__}:
        raise ModelError(
            f"{owner} was made under a FakeTensorMode, so its {name} has no numbers to decide by. Build the model "
            'outside of it, or with device="meta".'
        )
    if tensor.is_nested and tensor.layout is torch.strided and tensor.requires_grad:
        raise ModelError(
            f"{owner} has a nested {name}, which has no one shape and cannot be trained. Make it with "
            "layout=torch.jagged, or a parameter of each part."
        )


def _unwrapped(model: nn.Module, inplace: bool) -> nn.Module:
    """The model inside ``DataParallel`` or ``torch.compile``, however deep; a model that is not wrapped, itself.

    Raises:
        ModelError: for a wrapper that a rewriting would break: a sharded model, or, in place, one under
            ``DistributedDataParallel``, which has its own list of parameters.
    """
    while True:
        kind = type(model).__name__
        # By name: importing the compiler and the sharding for this would cost more than all the rest.
        kinds = {ancestor.__name__ for ancestor in type(model).__mro__}
        if isinstance(model, DistributedDataParallel) and inplace:
            raise ModelError(
                f"This model is wrapped in {kind}, which would not know the new gains and never average their "
                "gradients over ranks. Prepare the model first, then wrap it."
            )
        if kinds & {"FullyShardedDataParallel", "FSDPModule"}:
            raise ModelError(
                f"This model is sharded ({kind}): its filters are spread over ranks. Prepare it first, then shard it."
            )
        if isinstance(model, nn.DataParallel | DistributedDataParallel):
            model = model.module
        elif "OptimizedModule" in kinds:
            model = cast(nn.Module, model._orig_mod)
        else:
            return model


def check_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Check that ``optimizer`` holds the trainable parameters of ``model``, all of them and no others.

    An optimizer that was made before :func:`sgdph_fx.prepare` holds weights that are no longer there, or, after
    ``inplace=True``, lacks the gains; it would train on without a word. One that was made of plain parameters
    in place of groups knows no second-order ones, and would train plain SGD.

    Args:
        model: The prepared model.
        optimizer: Any optimizer of torch; that some parameter must be second-order holds for SGDPH alone.

    Raises:
        StaleOptimizerError: if it lacks one, or holds one that is not the model's; the message names them.
        OptimizerError: if it is SGDPH, and no parameter has order 2 though some look channel-wise; if the two are no
            model and no optimizer.

    >>> from torch import nn
    >>> from sgdph_fx import SGDPH, check_optimizer, prepare
    >>> model, param_groups, _ = prepare(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)))
    >>> check_optimizer(model, SGDPH(param_groups, lr=0.1))
    """
    if not isinstance(model, nn.Module) or not isinstance(getattr(optimizer, "param_groups", None), list):
        raise OptimizerError(
            f"check_optimizer takes the model and then its optimizer; these are a {type(model).__name__} and a "
            f"{type(optimizer).__name__}."
        )
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    own = {id(p): name for name, p in model.named_parameters()}
    lacking = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in held]
    strangers = len(held - own.keys())
    if lacking or strangers:
        raise StaleOptimizerError(
            f"This {type(optimizer).__name__} does not fit the model: it lacks {first_few(lacking) or 'none'} of its "
            f"trainable parameters, and holds {strangers} that are not the model's. Make the optimizer after "
            "`prepare`, from the `param_groups` that it returns."
        )
    orders = {group["order"] for group in optimizer.param_groups if "order" in group and group["params"]}
    if orders == {1} and any(p.requires_grad and p.dim() == 1 for p in model.parameters()):
        raise OptimizerError(
            f"This {type(optimizer).__name__} has no parameter of order 2, so it trains plain SGD with momentum. Make "
            "it from the `param_groups` that `prepare` returns, or from `sgdph_fx.param_groups(model)`."
        )


def _require_trainable(model: nn.Module) -> None:
    """Raises :class:`NothingToTrainError` if no parameter requires a gradient."""
    total = sum(1 for _ in model.parameters())
    if total == 0:
        raise NothingToTrainError(f"{type(model).__name__} has no parameters, so there is nothing to train.")
    if not any(p.requires_grad for p in model.parameters()):
        raise NothingToTrainError(
            f"All {total} parameters of {type(model).__name__} are frozen (requires_grad is False), so there is "
            "nothing to train. Unfreeze those that should learn, then prepare the model."
        )


def _require_finite(model: nn.Module) -> None:
    """Raises :class:`NonFiniteWeightError`, naming them, if parameters hold NaN or infinity."""
    bad = [
        f"{name} ({sum(int((~numbers.isfinite()).sum()) for numbers in _numbers(parameter))} of {parameter.numel()})"
        for name, parameter in model.named_parameters()
        if not parameter.is_meta and not all(map(_is_finite, _numbers(parameter)))
    ]
    if bad:
        raise NonFiniteWeightError(
            f"Not finite: {first_few(bad)}. Such weights have no direction and gain, and cannot be trained "
            "from. Load a sound checkpoint, or initialise them anew."
        )


def _is_finite(numbers: Tensor) -> bool:
    # A sum shows each NaN and infinity in a fifteenth of the time, but overflows for some numbers that are finite.
    return bool(numbers.sum().isfinite()) or bool(numbers.isfinite().all())


def _numbers(parameter: nn.Parameter) -> Iterator[Tensor]:
    """All numbers of a parameter of any layout, in tensors that can be asked whether they are finite."""
    whole = parameter.detach()
    for part in whole.unbind() if whole.is_nested else components(whole):
        is_tiny = part.is_floating_point() and part.dtype.itemsize == 1  # float8, which has no operations
        yield part.float() if is_tiny else part
