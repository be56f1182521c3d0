"""Read a model in training mode and in evaluation mode, by whichever way the inputs allow."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from sgdph_fx.errors import TraceError
from sgdph_fx.plan.entries import Hint
from sgdph_fx.plan.wording import counted, first_few
from sgdph_fx.trace.eager import eagerly
from sgdph_fx.trace.graph import Trace, same_operations
from sgdph_fx.trace.inputs import ExampleInputs, Run, runner
from sgdph_fx.trace.recorded import trace_by_recording
from sgdph_fx.trace.state import modes_differ, untouched, without_collection
from sgdph_fx.trace.symbolic import trace_symbolically

__all__ = ["Reading", "read_model"]

Result = TypeVar("Result")


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


def read_model(
    model: nn.Module, example_inputs: ExampleInputs | None, use: Callable[[Reading], Result]
) -> Result:
    """Trace ``model`` in both modes: by recording a run on ``example_inputs``, or symbolically without them.

    Each trace starts from the model as it is. So does ``use``, and whatever it does to the model is put back: to read
    an attribute may run code of the model's own, as a parametrized weight does.

    To compare all numbers after each of these steps would take longer than the steps. So they are compared once, at the
    end, and in between at a glance. If the end finds a change that a glance cannot see, a step may have started from
    changed numbers, and all is done again with all numbers compared after each step. One kind of code can mislead a
    step, and cannot change the model: what writes only behind the first 64 KiB of a memory, and in a later step writes
    the same bits as before.

    Args:
        model: The model.
        example_inputs: As for :func:`runner`; None to trace symbolically.
        use: Gets the traces. Where all is done again, it is called again.

    Returns:
        What ``use`` returned.

    Raises:
        TraceError: if the model cannot be traced, or does not run on the inputs in either mode.
        ModelError, ModelChangedError: if its state cannot be kept or put back.
    """
    try:
        with untouched(model) as snapshot:
            result = _read(model, example_inputs, use, snapshot.glance)
        if not snapshot.has_missed:
            return result
    except TraceError:
        if not snapshot.has_missed:
            raise
    with untouched(model) as snapshot:
        return _read(model, example_inputs, use, snapshot.put_back)


def _read(
    model: nn.Module,
    example_inputs: ExampleInputs | None,
    use: Callable[[Reading], Result],
    put_back: Callable[[], None],
) -> Result:
    with without_collection():
        with eagerly():
            if example_inputs is None:
                reading = _read_symbolically(model, put_back)
            else:
                with runner(example_inputs, model) as run:
                    reading = _record(model, run, put_back)
        put_back()
        return use(reading)


def _read_symbolically(model: nn.Module, put_back: Callable[[], None]) -> Reading:
    differ = modes_differ(model)
    training = trace_symbolically(model, True)
    put_back()
    evaluation = trace_symbolically(model, False)
    same = not differ and same_operations(training.graph, evaluation.graph)
    return Reading((training,) if same else (training, evaluation))


def _record(model: nn.Module, run: Run, put_back: Callable[[], None]) -> Reading:
    own = {name for name, _ in model.named_parameters()}
    traces: list[Trace] = []
    hints: list[Hint] = []
    try:
        traces.append(trace_by_recording(model, run, True))
        hints.extend(_late_parameters(model, own))
    except TraceError as error:
        hints.append(Hint("training-run-failed", "", f"{error} Verdicts are those of evaluation mode."))
    put_back()
    traces.append(trace_by_recording(model, run, False))
    return Reading(tuple(traces), (*hints, *_unseen_convolutions(traces)))


def _late_parameters(model: nn.Module, own: Collection[str]) -> Iterator[Hint]:
    late = [name for name, _ in model.named_parameters() if name not in own]
    if late:
        message = (
            f"the first run makes {first_few(late)}, which the plan does not know and no group holds; run the model "
            "once on an input, then prepare it"
        )
        yield Hint("late-parameters", "", message)


def _unseen_convolutions(traces: Sequence[Trace]) -> Iterator[Hint]:
    counts = {path: max(t.unseen.get(path, 0) for t in traces) for t in traces for path in t.unseen}
    for path, count in counts.items():
        if count:
            message = (
                f"{counted(count, 'convolution')} ran inside this TorchScript module, where none can be "
                "decoupled, whatever follows it; pass the module that it was made from, and script after training"
            )
            yield Hint("unseen-convolutions", path, message)
