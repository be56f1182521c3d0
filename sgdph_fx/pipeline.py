"""The stages in one call: trace, decide, transform, verify."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import NamedTuple

from torch import nn

from sgdph_fx.analysis import Analysis, decide
from sgdph_fx.checks import Subject, accept, require_preparable
from sgdph_fx.plan import Config, Plan
from sgdph_fx.plan.param_groups import ParamGroup, build_param_groups
from sgdph_fx.report import Report
from sgdph_fx.report.graph_view import graph_view_of
from sgdph_fx.trace import ExampleInputs, eagerly, read_model, undone_on_error, untouched, without_collection
from sgdph_fx.transform.guard import one_at_a_time
from sgdph_fx.verification import Expectation

__all__ = ["Prepared", "analyze", "param_groups", "prepare"]


class Prepared(NamedTuple):
    """What :func:`prepare` returns.

    Args:
        model: The model, of your own class, in which bare convolutions have been decoupled.
        param_groups: Ordinary parameter groups for :class:`sgdph_fx.SGDPH`, or for any torch optimizer.
        report: What was decided and why; print it to read it.
    """

    model: nn.Module
    param_groups: list[ParamGroup]
    report: Report


def analyze(
    model: nn.Module, example_inputs: ExampleInputs | None = None, *, config: Config | None = None
) -> Plan:
    """Decide how each parameter of ``model`` is treated, and change nothing.

    Args:
        model: The model. Its parameters, buffers, modes, gradients and the state of the random number
            generators are the same afterwards.
        example_inputs: A tensor, a tuple of positional arguments, a dict of keyword arguments, or a callable
            that runs the model. With inputs, one real run in each mode is recorded, which works for
            whatever runs in PyTorch; without inputs, torch.fx traces the model symbolically.
        config: The policy, and rules for single names.

    Returns:
        The plan.

    Raises:
        ModelError: if ``model`` is no module, is TorchScript, is sharded, or has a lazy layer without a shape.
        TraceError: if it cannot be traced, or does not run on the inputs; the message names the line.
        ConfigError: if a rule matches nothing.
    """
    return _analyze(accept(model), example_inputs, config).plan


def prepare(
    model: nn.Module,
    example_inputs: ExampleInputs | None = None,
    *,
    config: Config | None = None,
    inplace: bool = False,
) -> Prepared:
    """Make ``model`` ready for SGD-PH.

    Bare convolutions are rewritten into gain and direction, (8) of the paper; every parameter is given its
    order. A model that is prepared already comes back with its groups.

    Args:
        model: The model. ``DataParallel``, ``DistributedDataParallel`` and ``torch.compile`` are taken off, and
            a hint says so.
        example_inputs: As for :func:`analyze`.
        config: The policy, and rules for single names.
        inplace: Rewrite ``model`` itself. An optimizer made before does not know the new gains: make it after.

    Returns:
        The prepared model, its parameter groups, and the report.

    Raises:
        ModelError: as :func:`analyze`, and if a parameter is not finite, or none is trainable.
        TraceError, ConfigError: as :func:`analyze`.
        RewriteError: if the rewritten weights, or with inputs the outputs, differ from the originals.
        In every case the model is as it was.
    """
    subject = accept(model, inplace=inplace)
    require_preparable(subject.model)
    with one_at_a_time(subject.model), without_collection():
        analysis = _analyze(subject, example_inputs, config)
        plan, graph_view = analysis.plan, graph_view_of(analysis.flows[0])
        expected = Expectation.of(subject.model, plan, example_inputs)
        with undone_on_error(subject.model) if inplace else nullcontext():
            prepared = plan.apply(subject.model, inplace=inplace)
            check = expected.verify(prepared)
    return Prepared(prepared, build_param_groups(plan, prepared), Report(plan, check, graph_view))


def param_groups(
    model: nn.Module | Prepared,
    example_inputs: ExampleInputs | None = None,
    *,
    config: Config | None = None,
) -> list[ParamGroup]:
    """The parameter groups of a model as it stands, prepared or not; nothing is rewritten.

    Args:
        model: A model, or what :func:`prepare` returned. The weights of convolutions that are not
            decoupled are first-order.
        example_inputs: As for :func:`analyze`.
        config: The policy, and rules for single names.

    Returns:
        Ordinary groups with ``params``, ``param_names``, ``order``, ``role``, ``name`` and ``index``.

    Raises:
        ModelError, TraceError, ConfigError: as :func:`analyze`.
    """
    if isinstance(model, Prepared):
        return build_param_groups(model.report.plan, model.model)
    subject = accept(model)
    return build_param_groups(
        _analyze(subject, example_inputs, config).plan.without_rewriting(), subject.model
    )


def _analyze(subject: Subject, example_inputs: ExampleInputs | None, config: Config | None) -> Analysis:
    model, config = subject.model, config or Config()
    with untouched(model), without_collection(), eagerly():
        reading = read_model(model, example_inputs)
        return decide(model, replace(reading, hints=(*subject.hints, *reading.hints)), config)
