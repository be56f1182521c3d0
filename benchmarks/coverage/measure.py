"""One model, stage by stage: each adds what it finds to the row."""

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

# Repeated while this lasts, at most so often: small models are noisy, large ones are not.
_SECONDS, _TIMES = 0.8, 5

# Of two values a batch norm keeps only the order, so that the oracle needs more.
_BATCH, _LARGER_BATCH = 2, 4


@dataclass
class _Bench:
    """What a stage leaves to the next."""

    sample: Sample
    symbolic: Plan | None = None
    recorded: Plan | None = None


def rows_of(zoo: str, model: str, build: Callable[[int], Sample], oracle: int = 0) -> Iterator[Row]:
    """The row of one model, again and again, each time with one stage more; the last is the whole.

    A stage that raises ends it, with its name in ``failed``.

    Args:
        zoo, model: Its names.
        build: Gives the model with a batch of that many inputs.
        oracle: How many convolutions the numerical oracle is asked about.
    """
    row = Row(zoo, model)
    start = time.perf_counter()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    try:
        bench = _Bench(stirred(build(_BATCH)))
    except Exception as error:
        yield replace(row, failed="build", reason=_told(error))
        return
    size = sum(p.numel() for p in bench.sample.model.parameters() if p.requires_grad)
    row = replace(row, inputs=bench.sample.shapes, parameters=size)
    stages = {**_STAGES, **({"oracle": _oracle(build, oracle, f"{zoo} {model}")} if oracle else {})}
    for name, stage in stages.items():
        yield row
        try:
            row = replace(row, **stage(bench), seconds=time.perf_counter() - start)
        except Exception as error:
            yield replace(row, failed=name, reason=_told(error), seconds=time.perf_counter() - start)
            return
    yield row


def _recorded(bench: _Bench) -> dict[str, Any]:
    sample = bench.sample
    _in_both_modes(sample)  # the first run is slower than the others
    with watched(sample.model) as disturbed:
        bench.recorded = analyze(sample.model, sample)
    forward, seconds = _alternating(lambda: _in_both_modes(sample), lambda: analyze(sample.model, sample))
    return {
        "forward_seconds": forward,
        "recorded": _reading(bench.recorded, seconds),
        "disturbed": tuple(disturbed),
    }


def _symbolic(bench: _Bench) -> dict[str, Any]:
    model = bench.sample.model.train()
    try:
        with watched(model) as disturbed:
            bench.symbolic = analyze(model)
    except TraceError as error:
        return {"symbolic_error": _told(error)}
    found: dict[str, Any] = {"disturbed": tuple(disturbed)} if disturbed else {}
    try:
        fx.symbolic_trace(model)
    except Exception as error:
        seconds, _ = _alternating(lambda: analyze(model), lambda: None)
        return {**found, "symbolic": _reading(bench.symbolic, seconds), "fx_error": _told(error)}
    plain, seconds = _alternating(lambda: fx.symbolic_trace(model), lambda: analyze(model))
    return {**found, "symbolic": _reading(bench.symbolic, seconds), "fx_seconds": plain}


def _agreement(bench: _Bench) -> dict[str, Any]:
    if bench.symbolic is None or bench.recorded is None:
        return {}
    return {"differences": tuple(differences(bench.symbolic, bench.recorded))}


def _convolutions(bench: _Bench) -> dict[str, Any]:
    sample = bench.sample
    run, seen = convolution_calls(sample.model, sample)
    missed = tuple(overlooked(bench.recorded, sample.model, sample)) if bench.recorded else ()
    return {"convolutions_run": run, "convolutions_seen": seen, "overlooked": missed}


def _round_trip(bench: _Bench) -> dict[str, Any]:
    sample = bench.sample
    state = {name: (value.shape, value.double().sum()) for name, value in sample.model.state_dict().items()}
    before = outputs_of(sample.model.eval(), sample)
    prepared = prepare(sample.model, sample)
    bench.sample = replace(sample, model=prepared.model)  # lets the original go: some are large
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


def _oracle(build: Callable[[int], Sample], number: int, seed: str) -> Callable[[_Bench], dict[str, Any]]:
    def stage(bench: _Bench) -> dict[str, Any]:
        from benchmarks.coverage.oracle_check import asked

        bench.sample = stirred(build(_LARGER_BATCH))
        return {"oracle": asked(bench.sample, number, seed)}

    return stage


_STAGES: dict[str, Callable[[_Bench], dict[str, Any]]] = {
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
    """The least seconds of each of two calls that take turns."""
    times: list[tuple[float, float]] = []
    start = time.perf_counter()
    while len(times) < _TIMES and (not times or time.perf_counter() - start < _SECONDS):
        times.append((_seconds(first), _seconds(second)))
    return min(a for a, _ in times), min(b for _, b in times)


def _seconds(call: Callable[[], Any]) -> float:
    """Seconds of processor time, which on one thread is what a call takes on a machine that does nothing else."""
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
        yield "its keys or their order"
    for name, (shape, total) in before.items():
        value = after.get(name)
        if value is not None and not _is(value, shape, total):
            yield name


def _is(value: Tensor, shape: torch.Size, total: Tensor) -> bool:
    return value.shape == shape and torch.allclose(value.double().sum(), total, 1e-5, 1e-5, equal_nan=True)


def _told(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:600]
