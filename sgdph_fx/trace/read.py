"""Read a model in training mode and in evaluation mode, by whichever way the inputs allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from sgdph_fx.errors import TraceError
from sgdph_fx.plan.entries import Hint
from sgdph_fx.plan.wording import counted
from sgdph_fx.trace.graph import Trace, same_operations
from sgdph_fx.trace.inputs import ExampleInputs, Run, runner
from sgdph_fx.trace.recorded import trace_by_recording
from sgdph_fx.trace.state import modes_differ
from sgdph_fx.trace.symbolic import trace_symbolically

__all__ = ["Reading", "read_model"]


@dataclass(frozen=True, slots=True)
class Reading:
    """The traces of one model.

    Args:
        traces: The trace that decides first: the one in training mode if the model runs in it. A second one, in
            evaluation mode, follows where it can differ.
        hints: What went otherwise than you would expect.
    """

    traces: tuple[Trace, ...]
    hints: tuple[Hint, ...] = ()


def read_model(model: nn.Module, example_inputs: ExampleInputs | None) -> Reading:
    """Trace ``model`` in both modes: by recording a run on ``example_inputs``, or symbolically without them.

    Raises:
        TraceError: if the model cannot be traced, or does not run on the inputs in either mode.
    """
    return _read_symbolically(model) if example_inputs is None else _record(model, example_inputs)


def _read_symbolically(model: nn.Module) -> Reading:
    training, evaluation = (trace_symbolically(model, flag) for flag in (True, False))
    same = not modes_differ(model) and same_operations(training.graph, evaluation.graph)
    return Reading((training,) if same else (training, evaluation))


def _record(model: nn.Module, example_inputs: ExampleInputs) -> Reading:
    with runner(example_inputs, model) as run:
        traces, hints = _record_both_modes(model, run)
    return Reading(traces, (*hints, *_unseen_convolutions(traces)))


def _record_both_modes(model: nn.Module, run: Run) -> tuple[tuple[Trace, ...], tuple[Hint, ...]]:
    try:
        training = trace_by_recording(model, run, True)
    except TraceError as error:
        evaluation = trace_by_recording(model, run, False)
        return (evaluation,), (
            Hint("training-run-failed", "", f"{error} Verdicts are those of evaluation mode."),
        )
    return (training, trace_by_recording(model, run, False)), ()


def _unseen_convolutions(traces: Sequence[Trace]) -> Iterator[Hint]:
    counts = {path: max(t.unseen.get(path, 0) for t in traces) for t in traces for path in t.unseen}
    for path, count in counts.items():
        if count:
            message = (
                f"{counted(count, 'convolution')} ran inside this TorchScript module, where none can be "
                "decoupled, whatever follows it; pass the module that it was made from, and script after training"
            )
            yield Hint("unseen-convolutions", path, message)
