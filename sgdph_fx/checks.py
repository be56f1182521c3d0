"""The checks around a preparation: refuse what cannot be treated before anything changes, and verify the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy

from sgdph_fx.errors import (
    ModelError,
    NonFiniteWeightError,
    NotAModuleError,
    NothingToTrainError,
    OptimizerError,
    RewriteError,
    ScriptedModelError,
    StaleOptimizerError,
    UninitializedModelError,
)
from sgdph_fx.plan import Plan
from sgdph_fx.plan.entries import Hint
from sgdph_fx.plan.wording import first_few
from sgdph_fx.report import Check
from sgdph_fx.trace import ExampleInputs, Run, eagerly, mode, runner, untouched
from sgdph_fx.transform import restore
from sgdph_fx.transform.filters import compose, decompose

__all__ = ["Expectation", "Subject", "accept", "check_optimizer", "require_preparable"]


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


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a rewriting must not change, measured on the model before it is rewritten.

    Args:
        weights: The largest relative difference between a weight and what its parts give back.
        outputs: The model's outputs in evaluation mode, where you gave example inputs.
        run: What runs a model on these inputs.
    """

    weights: float
    outputs: list[Tensor] | None
    run: Run | None

    @classmethod
    def of(cls, model: nn.Module, plan: Plan, example_inputs: ExampleInputs | None) -> Expectation:
        """Measure it; ``model`` stays as it is.

        Raises:
            RewriteError: if a weight is not computed back from its parts.
        """
        weights = _require_exact_weights(model, plan)
        if example_inputs is None:
            return cls(weights, None, None)
        run = runner(example_inputs)
        return cls(weights, _outputs_of(model, run), run)

    def verify(self, prepared: nn.Module) -> Check:
        """Compare the prepared model with it.

        Raises:
            RewriteError: if an output differs by more than rounding explains; the model is put back.
        """
        if self.outputs is None or self.run is None:
            return Check("weights computed from direction and gain", self.weights)
        difference = _require_equal_outputs(self.outputs, prepared, self.run)
        return Check("outputs in evaluation mode", difference)


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
            if is_lazy(tensor):
                raise UninitializedModelError(
                    f"{owner or 'The model'} ({type(module).__name__}) is lazy and has no shape yet: its {name} is "
                    "uninitialized. Run the model once on an input, then prepare it."
                )
    return model


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
        OptimizerError: if it is SGDPH, and no parameter has order 2 though some look channel-wise.

    >>> from torch import nn
    >>> from sgdph_fx import SGDPH, check_optimizer, prepare
    >>> model, param_groups, _ = prepare(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)))
    >>> check_optimizer(model, SGDPH(param_groups, lr=0.1))
    """
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
        f"{name} ({int((~parameter.isfinite()).sum())} of {parameter.numel()})"
        for name, parameter in model.named_parameters()
        if not parameter.is_meta and not bool(parameter.isfinite().all())
    ]
    if bad:
        raise NonFiniteWeightError(
            f"Not finite: {first_few(bad)}. Such weights have no direction and gain, and cannot be trained "
            "from. Load a sound checkpoint, or initialise them anew."
        )


def _require_exact_weights(model: nn.Module, plan: Plan) -> float:
    """Check, before anything is changed, that each weight to decouple is computed back from its parts.

    Returns:
        The largest relative difference, max |W' - W| / max |W|, over all of them.

    Raises:
        RewriteError: if one differs by more than rounding.
    """
    worst = 0.0
    for name, filters in plan.filters.items():
        weight = model.get_parameter(name).detach()
        if weight.is_meta or not weight.numel():
            continue
        difference = float((compose(*decompose(weight, filters), filters) - weight).abs().max())
        difference /= max(float(weight.abs().max()), torch.finfo(weight.dtype).tiny)
        if not difference <= 16 * torch.finfo(weight.dtype).eps:
            raise RewriteError(
                f"{name}: direction and gain give the weight back only to {difference:.1e} (relative). "
                "Keep this convolution as it is with a rule 'keep'."
            )
        worst = max(worst, difference)
    return worst


def _outputs_of(model: nn.Module, run: Run) -> list[Tensor]:
    """All floating tensors that ``run(model)`` returns in evaluation mode; ``model`` stays as it is."""
    with untouched(model), mode(model, training=False), eagerly():
        torch.manual_seed(0)  # undone on leaving: a model that draws random numbers draws the same twice
        leaves = pytree.tree_leaves(run(model))
    return [leaf.detach() for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _require_equal_outputs(before: list[Tensor], prepared: nn.Module, run: Run) -> float:
    """Check that a prepared model computes what it did before; if not, it is put back.

    Args:
        before: What :func:`outputs_of` gave for the plain model.
        prepared: The prepared model.
        run: Runs a model on the example inputs.

    Returns:
        The largest relative difference, max |y' - y| / max |y|, over all outputs.

    Raises:
        RewriteError: if one differs by more than rounding can explain.
    """
    after = _outputs_of(prepared, run)
    worst = max([_relative(a, b) for a, b in zip(after, before, strict=True)], default=0.0)
    tolerance = max([torch.finfo(b.dtype).eps ** 0.5 for b in before], default=0.0)
    if not worst <= tolerance:
        restore(prepared, inplace=True)
        raise RewriteError(
            f"The rewritten model's output differs by {worst:.1e} (relative), more than rounding explains: some "
            "code reads a decoupled weight in another way than as `module.weight`. Keep such convolutions as they are "
            "with a rule 'keep'. The model is as it was."
        )
    return worst


def _relative(after: Tensor, before: Tensor) -> float:
    if not before.numel() or after.is_meta:
        return 0.0
    difference = (after - before).abs().nan_to_num(0.0).max()
    return float(difference / before.abs().nan_to_num(0.0).max().clamp_min(torch.finfo(before.dtype).tiny))
