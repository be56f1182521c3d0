"""The stages in one call: trace, follow the flow, judge, tag, rewrite, check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import nn

from sgdph_fx.checks import (
    outputs_of,
    require_equal_outputs,
    require_exact_rewrite,
    require_finite,
    require_module,
    require_trainable,
    unwrapped,
)
from sgdph_fx.config import Config
from sgdph_fx.convolutions import convolution_rows
from sgdph_fx.errors import TraceError
from sgdph_fx.flow import Flow, flow_of
from sgdph_fx.groups import ParamGroup, groups_of
from sgdph_fx.noticed import noticed
from sgdph_fx.overrides import override_convolutions, override_parameters
from sgdph_fx.picture import picture_of
from sgdph_fx.plan import Plan
from sgdph_fx.report import Check, Report
from sgdph_fx.rows import Hint
from sgdph_fx.tags import parameter_rows
from sgdph_fx.trace import (
    ExampleInputs,
    Trace,
    eagerly,
    runner,
    trace_by_recording,
    trace_symbolically,
    untouched,
    without_collection,
)

__all__ = ["Prepared", "analyze", "param_groups", "prepare"]


class Prepared(NamedTuple):
    """What :func:`prepare` returns.

    Args:
        model: The model, of the person's own class, in which bare convolutions have been decoupled.
        param_groups: Ordinary parameter groups for :class:`sgdph_fx.SGDPH`, or for any torch optimizer.
        report: What was decided and why; printing it shows it.
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
            that runs the model. With them one real run in each mode is recorded, which works for
            whatever runs in PyTorch; without, the model is traced symbolically by torch.fx.
        config: The policy, and rules for single names.

    Returns:
        The plan.

    Raises:
        ModelError: if ``model`` is no module, is TorchScript, is sharded, or has a lazy layer without a shape.
        TraceError: if it cannot be traced, or does not run on the inputs; the message names the line.
        ConfigError: if a rule matches nothing.
    """
    return _analyze(model, example_inputs, config)[0]


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
    wrapper, model = model, unwrapped(require_module(model), inplace)
    require_trainable(model)
    require_finite(model)
    plan, flow = _analyze(wrapper, example_inputs, config)
    picture = picture_of(flow)
    check = Check("weights computed from direction and gain", require_exact_rewrite(model, plan))
    if example_inputs is None:
        prepared = plan.apply(model, inplace=inplace)
    else:
        run = runner(example_inputs)
        before = outputs_of(model, run)
        prepared = plan.apply(model, inplace=inplace)
        check = Check("outputs in evaluation mode", require_equal_outputs(before, prepared, run))
    return Prepared(prepared, groups_of(plan, prepared), Report(plan, check, picture))


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
        return groups_of(model.report.plan, model.model)
    return groups_of(analyze(model, example_inputs, config=config).without_rewriting(), unwrapped(model))


def _analyze(
    model: nn.Module, example_inputs: ExampleInputs | None, config: Config | None
) -> tuple[Plan, Flow]:
    """The plan, and the flow that decided it: that of training where the model runs so."""
    inner = unwrapped(require_module(model))
    hints = [] if inner is model else [_unwrapping(model, inner)]
    model, config = inner, config or Config()
    with without_collection(), untouched(model), eagerly():
        traces, more = _trace(model, example_inputs)
        flows = [flow_of(trace, model) for trace in traces]
        return _decide(model, traces[0], flows, config, [*hints, *more]), flows[0]


def _unwrapping(wrapper: nn.Module, inner: nn.Module) -> Hint:
    kind = type(wrapper).__name__
    message = (
        f"the {type(inner).__name__} inside {kind} was taken, and is what is returned; wrap it again to train"
    )
    return Hint("unwrapped", "", message)


def _decide(model: nn.Module, trace: Trace, flows: list[Flow], config: Config, hints: list[Hint]) -> Plan:
    convolutions, more = convolution_rows(model, flows, config.policy)
    convolutions = override_convolutions(convolutions, config.rules)
    parameters = override_parameters(parameter_rows(model, convolutions, flows), config.rules)
    more = (*more, *noticed(model, flows[0], convolutions, parameters))
    return Plan(
        model=f"{type(model).__module__}.{type(model).__qualname__}",
        policy=config.policy,
        way=trace.way,
        convolutions=convolutions,
        parameters=parameters,
        frozen=tuple(name for name, p in model.named_parameters() if not p.requires_grad),
        hints=tuple(hint for hint in (*hints, *more) if hint.code not in config.silence),
    )


def _trace(model: nn.Module, example_inputs: ExampleInputs | None) -> tuple[list[Trace], list[Hint]]:
    """Training mode first, which decides, then evaluation."""
    if example_inputs is None:
        training_trace = trace_symbolically(model, True)
        if training_trace.either_mode:
            return [training_trace], []
        return [training_trace, trace_symbolically(model, False)], []
    run = runner(example_inputs)
    try:
        training = [trace_by_recording(model, run, True)]
    except TraceError as error:
        traces = [trace_by_recording(model, run, False)]
        hints = [Hint("training-run-failed", "", f"{error} Verdicts are those of evaluation mode.")]
    else:
        traces, hints = [*training, trace_by_recording(model, run, False)], []
    return traces, [*hints, *_unseen(traces)]


def _unseen(traces: Sequence[Trace]) -> Iterator[Hint]:
    counts = {path: max(t.unseen.get(path, 0) for t in traces) for t in traces for path in t.unseen}
    for path, count in counts.items():
        if count:
            message = (
                f"{count} convolution{'s' if count > 1 else ''} ran inside this TorchScript module, where none can be "
                "decoupled, whatever follows it; pass the module that it was made from, and script after training"
            )
            yield Hint("unseen-convolutions", path, message)
