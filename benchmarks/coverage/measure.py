"""Measure one model in stages. Each stage adds what it finds to the row."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from benchmarks.coverage.compare import (
    convolution_calls,
    differences,
    distance,
    ill_grouped,
    outputs_of,
    overlooked,
    says_nothing,
)
from benchmarks.coverage.row import Reading, Row
from benchmarks.coverage.sample import Sample
from benchmarks.coverage.state import stirred, watched
from sgdph_fx import Plan, analyze, prepare, restore
from sgdph_fx.errors import TraceError

__all__ = ["rows_of"]

# Repeat for this long, at most that often: small models are noisy, large ones are not.
_SECONDS, _TIMES = 0.8, 5

# Of two values a batch norm keeps only their order, so the oracle needs more.
_BATCH, _LARGER_BATCH = 2, 4


@dataclass
class _Subject:
    """What a stage leaves for the next."""

    sample: Sample
    symbolic: Plan | None = None
    recorded: Plan | None = None


def rows_of(zoo: str, model: str, build: Callable[[int], Sample], oracle: int = 0) -> Iterator[Row]:
    """Measure one model.

    Args:
        zoo: The zoo's name.
        model: The model's name there.
        build: Builds the model with a batch of that many inputs.
        oracle: How many convolutions to test numerically.

    Yields:
        The model's row, each time with one more stage. A stage that raises is the last one, with its name in
        ``failed``.
    """
    row = Row(zoo, model)
    start = time.perf_counter()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    try:
        subject = _Subject(stirred(build(_BATCH)))
    except Exception as error:
        yield replace(row, failed="build", reason=_describe(error))
        return
    size = sum(p.numel() for p in subject.sample.model.parameters() if p.requires_grad)
    row = replace(row, inputs=subject.sample.shapes, parameters=size)
    stages = {**_STAGES, **({"oracle": _oracle(build, oracle, f"{zoo} {model}")} if oracle else {})}
    for name, stage in stages.items():
        yield row
        try:
            row = replace(row, **stage(subject), seconds=time.perf_counter() - start)
        except Exception as error:
            yield replace(row, failed=name, reason=_describe(error), seconds=time.perf_counter() - start)
            return
    yield row


def _recorded(subject: _Subject) -> dict[str, Any]:
    sample = subject.sample
    _in_both_modes(sample)  # the first run is slower than the rest
    with watched(sample.model) as disturbed:
        subject.recorded = analyze(sample.model, sample)
    forward, seconds = _alternating(lambda: _in_both_modes(sample), lambda: analyze(sample.model, sample))
    return {
        "forward_seconds": forward,
        "recorded": _reading(subject.recorded, seconds),
        "disturbed": tuple(disturbed),
    }


def _symbolic(subject: _Subject) -> dict[str, Any]:
    model = subject.sample.model.train()
    try:
        with watched(model) as disturbed:
            subject.symbolic = analyze(model)
    except TraceError as error:
        return {"symbolic_error": _describe(error)}
    found: dict[str, Any] = {"disturbed": tuple(disturbed)} if disturbed else {}
    try:
        fx.symbolic_trace(model)
    except Exception as error:
        seconds, _ = _alternating(lambda: analyze(model), lambda: None)
        return {**found, "symbolic": _reading(subject.symbolic, seconds), "fx_error": _describe(error)}
    plain, seconds = _alternating(lambda: fx.symbolic_trace(model), lambda: analyze(model))
    return {**found, "symbolic": _reading(subject.symbolic, seconds), "fx_seconds": plain}


def _agreement(subject: _Subject) -> dict[str, Any]:
    if subject.symbolic is None or subject.recorded is None:
        return {}
    return {"differences": tuple(differences(subject.symbolic, subject.recorded))}


def _convolutions(subject: _Subject) -> dict[str, Any]:
    sample = subject.sample
    run, seen = convolution_calls(sample.model, sample)
    missed = tuple(overlooked(subject.recorded, sample.model, sample)) if subject.recorded else ()
    return {"convolutions_run": run, "convolutions_seen": seen, "overlooked": missed}


def _round_trip(subject: _Subject) -> dict[str, Any]:
    sample = subject.sample
    state = {name: (value.shape, value.double().sum()) for name, value in sample.model.state_dict().items()}
    before = outputs_of(sample.model.eval(), sample)
    prepared = prepare(sample.model, sample)
    subject.sample = replace(sample, model=prepared.model)  # frees the original: some models are large
    after = distance(outputs_of(prepared.model, sample), before)
    groups = tuple(ill_grouped(prepared))
    restored = restore(prepared.model, inplace=True)
    return {
        "silent": says_nothing(before),
        "prepared": after,
        "groups": groups,
        "restored": distance(outputs_of(restored, sample), before),
        "state": tuple(_changed(state, restored)),
    }


def _oracle(build: Callable[[int], Sample], number: int, seed: str) -> Callable[[_Subject], dict[str, Any]]:
    def stage(subject: _Subject) -> dict[str, Any]:
        from benchmarks.coverage.oracle_check import check_verdicts

        subject.sample = stirred(build(_LARGER_BATCH))
        return {"oracle": check_verdicts(subject.sample, number, seed)}

    return stage


_STAGES: dict[str, Callable[[_Subject], dict[str, Any]]] = {
    "recorded": _recorded,
    "symbolic": _symbolic,
    "agreement": _agreement,
    "convolutions": _convolutions,
    "round trip": _round_trip,
}


def _in_both_modes(sample: Sample) -> None:
    for training in (True, False):
        sample(sample.model.train(training))
    sample.model.train()


def _alternating(first: Callable[[], Any], second: Callable[[], Any]) -> tuple[float, float]:
    """Measure the seconds of two calls that take turns, the least of each."""
    times: list[tuple[float, float]] = []
    start = time.perf_counter()
    while len(times) < _TIMES and (not times or time.perf_counter() - start < _SECONDS):
        times.append((_seconds(first), _seconds(second)))
    return min(a for a, _ in times), min(b for _, b in times)


def _seconds(call: Callable[[], Any]) -> float:
    """Measure processor seconds. On one thread this is what a call takes on an idle machine."""
    start = time.process_time()
    call()
    return time.process_time() - start


def _reading(plan: Plan, seconds: float) -> Reading:
    verdicts = Counter(row.verdict for row in plan.convolutions)
    hints = dict(Counter(hint.code for hint in plan.hints))
    return Reading(seconds, verdicts["bare"], verdicts["normalized"], len(plan.second_order), hints)


def _changed(before: dict[str, Any], model: nn.Module) -> Iterator[str]:
    after = model.state_dict()
    if list(before) != list(after):
        yield "its keys, or their order"
    for name, (shape, total) in before.items():
        value = after.get(name)
        if value is not None and not _is(value, shape, total):
            yield name


def _is(value: Tensor, shape: torch.Size, total: Tensor) -> bool:
    return value.shape == shape and torch.allclose(value.double().sum(), total, 1e-5, 1e-5, equal_nan=True)


def _describe(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:600]
