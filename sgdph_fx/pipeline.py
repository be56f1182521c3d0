"""The stages in one call: trace, decide, transform, verify."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal, TypeVar, overload

import torch
from torch import nn

from sgdph_fx.analysis import Analysis, decide
from sgdph_fx.analysis.standing import decide_as_it_stands, require_whole
from sgdph_fx.checks import Subject, accept, require_preparable
from sgdph_fx.plan import Config, Plan
from sgdph_fx.plan.assign import groups_of
from sgdph_fx.plan.param_groups import ParamGroup, build_param_groups
from sgdph_fx.plan.schemes import Scheme
from sgdph_fx.report import Check, Report
from sgdph_fx.report.graph_view import GraphView, graph_view_of
from sgdph_fx.report.prepared import Prepared
from sgdph_fx.trace import (
    ExampleInputs,
    Reading,
    read_model,
    undone_on_error,
    untouched,
    without_collection,
)
from sgdph_fx.transform import restore
from sgdph_fx.transform.copying import copy_of
from sgdph_fx.transform.decouple import decoupled_weights
from sgdph_fx.transform.guard import one_at_a_time
from sgdph_fx.transform.verification import Expectation

__all__ = ["analyze", "param_groups", "plan_as_it_stands", "prepare"]

Result = TypeVar("Result")


def analyze(
    model: nn.Module, example_inputs: ExampleInputs | None = None, *, config: Config | None = None
) -> Plan:
    """Decide how each parameter of ``model`` is treated, and change nothing.

    Only one thread at a time analyzes, prepares or audits; others wait. A model that another thread is training has to
    be copied first: running it changes it, if only for a while.

    Args:
        model: The model. All that a run or a change of mode may change in it is put back to the bit: parameters,
            buffers, gradients, flags, hooks, attributes and the containers in them, and random number generators.
        example_inputs: A tensor, a tuple of positional arguments, a dict of keyword arguments, or a callable
            that runs the model. The model gets copies of the tensors. With inputs, one real run in each mode is
            recorded, which works for whatever runs in PyTorch; without inputs, torch.fx traces the model symbolically.
        config: The policy, and rules for single names.

    Returns:
        The plan. For a model that is prepared already, it is the plan that fits it as it stands.

    Raises:
        ModelError: if ``model`` is no module, is TorchScript, is sharded, has a lazy layer without a shape, or has a
            state that cannot be kept.
        TraceError: if it cannot be traced, or does not run on the inputs; the message names the line.
        ConfigError: if a rule matches nothing.
        ModelChangedError: if the run changed something that could not be put back.

    >>> plan = analyze(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)))
    >>> [(row.name, row.verdict) for row in plan.convolutions]
    [('0', 'normalized'), ('2', 'bare')]
    """
    return _analyzed(accept(model), example_inputs, config, _plan_of)


def prepare(
    model: nn.Module,
    example_inputs: ExampleInputs | None = None,
    *,
    config: Config | None = None,
    inplace: bool = False,
) -> Prepared:
    """Make ``model`` ready for SGD-PH.

    Bare convolutions are rewritten into gain and direction, (8) of the paper; every parameter is given its
    order. Nothing is rewritten in a model that is prepared already: it comes back with its groups and its plan.

    Args:
        model: The model. ``DataParallel``, ``DistributedDataParallel`` and ``torch.compile`` are taken off, and
            a hint says so. It stays as it is, as :func:`analyze` says, unless ``inplace`` is true.
        example_inputs: As for :func:`analyze`. With inputs, the outputs in evaluation mode are compared as well.
        config: The policy, and rules for single names.
        inplace: Rewrite ``model`` itself instead of a deep copy. An optimizer made before does not know the new gains:
            make it after.

    Returns:
        The prepared model, its parameter groups, and the report.

    Raises:
        ModelError: as :func:`analyze`, and if a parameter is not finite, or none is trainable.
        UncopyableModelError: if ``inplace`` is false and the model has no copy that stands by itself.
        TraceError, ConfigError, ModelChangedError: as :func:`analyze`.
        RewriteError: if the rewritten weights, or with inputs the outputs, differ from the originals.

    After an error the model is as it was, except after a ``ModelChangedError``.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))
    >>> model, groups, report = prepare(net, torch.zeros(1, 3, 8, 8))
    >>> [(group["name"], group["param_names"]) for group in groups][:2]
    [('first-order direction', ['0.direction']), ('second-order gain', ['0.gain'])]
    """
    subject = accept(model, inplace=inplace)
    require_preparable(subject.model)
    with one_at_a_time(subject.model), torch.inference_mode(False), without_collection():
        plan, graph_view = _analyzed(subject, example_inputs, config, _plan_and_graph_view)
        if decoupled_weights(subject.model):
            model = subject.model if inplace else copy_of(subject.model)
            return _prepared(model, plan, None, graph_view)
        expected = Expectation.of(subject.model, plan, example_inputs)
        with undone_on_error(subject.model) if inplace else nullcontext():
            model = plan.apply(subject.model, inplace=inplace)
            return _prepared(model, plan, expected.verify(model), graph_view)


def _prepared(model: nn.Module, plan: Plan, check: Check | None, graph_view: GraphView) -> Prepared:
    return Prepared(model, build_param_groups(plan, model), Report(plan, check, graph_view))


@overload
def param_groups(
    model: nn.Module | Prepared,
    example_inputs: ExampleInputs | None = None,
    *,
    config: Config | None = None,
    scheme: Literal["sgd-ph", "no-decay", "layer-decay"] = "sgd-ph",
    **hyper: Any,
) -> list[ParamGroup]: ...


@overload
def param_groups(
    model: nn.Module | Prepared,
    example_inputs: ExampleInputs | None = None,
    *,
    config: Config | None = None,
    scheme: Literal["muon"],
    **hyper: Any,
) -> dict[str, list[ParamGroup]]: ...


@overload
def param_groups(
    model: nn.Module | Prepared,
    example_inputs: ExampleInputs | None = None,
    *,
    config: Config | None = None,
    scheme: str | Scheme,
    **hyper: Any,
) -> list[ParamGroup] | dict[str, list[ParamGroup]]: ...


def param_groups(
    model: nn.Module | Prepared,
    example_inputs: ExampleInputs | None = None,
    *,
    config: Config | None = None,
    scheme: str | Scheme = "sgd-ph",
    **hyper: Any,
) -> list[ParamGroup] | dict[str, list[ParamGroup]]:
    """The parameter groups of a model as it stands, prepared or not; nothing is rewritten.

    Args:
        model: A model, or what :func:`prepare` returned. The weights of convolutions that are not
            decoupled are first-order.
        example_inputs: As for :func:`analyze`.
        config: The policy, and rules for single names.
        scheme: What the groups are for: ``"sgd-ph"``, ``"no-decay"``, ``"layer-decay"``, ``"muon"``, or a scheme
            of your own; docs/schemes.md has them all.
        hyper: The scheme's hyper-parameters, such as ``weight_decay``, and ``lr``, the rate that factors multiply.

    Returns:
        A list of ordinary groups with ``params``, ``param_names``, ``name`` and ``index``, and for ``"sgd-ph"`` with
        ``order`` and ``role``. For a scheme for two optimizers, a list for each of them by its name.

    Raises:
        ModelError, TraceError, ConfigError, ModelChangedError: as :func:`analyze`.
        ConfigError: for a scheme or a hyper-parameter that does not exist.

    >>> [group["name"] for group in param_groups(nn.Linear(4, 2))]
    ['first-order weight', 'second-order bias']
    """
    if isinstance(model, Prepared):
        return groups_of(model.report.plan, model.model, scheme, hyper)
    subject = accept(model)
    return groups_of(_as_it_stands(subject, example_inputs, config), subject.model, scheme, hyper)


def plan_as_it_stands(model: nn.Module, example_inputs: ExampleInputs | None) -> Plan:
    """The plan of ``model`` with nothing rewritten that is not decoupled already.

    Raises:
        ModelError, TraceError, ModelChangedError: as :func:`analyze`.
    """
    return _as_it_stands(accept(model), example_inputs, None)


def _as_it_stands(subject: Subject, example_inputs: ExampleInputs | None, config: Config | None) -> Plan:
    plan = _analyzed(subject, example_inputs, config, _plan_of)
    return plan if decoupled_weights(subject.model) else plan.without_rewriting()


def _plan_of(found: Analysis) -> Plan:
    return found.plan


def _plan_and_graph_view(found: Analysis) -> tuple[Plan, GraphView]:
    return found.plan, graph_view_of(found.flows[0])


def _analyzed(
    subject: Subject,
    example_inputs: ExampleInputs | None,
    config: Config | None,
    result: Callable[[Analysis], Result],
) -> Result:
    """What ``result`` takes from the analysis of a model that is plain for so long: so a plan names its weights."""
    model, config = subject.model, config or Config()
    standing = decoupled_weights(model)
    require_whole(model, standing)

    def use(reading: Reading) -> Result:
        reading = replace(reading, hints=(*subject.hints, *reading.hints))
        if standing:
            return result(decide_as_it_stands(model, reading, config, standing))
        return result(decide(model, reading, config))

    with one_at_a_time(model), torch.inference_mode(False), untouched(model) if standing else nullcontext():
        if standing:
            restore(model, inplace=True)
        return read_model(model, example_inputs, use)
