"""Measure each model in its own process, with limits. What kills that process kills nothing else, and becomes a row."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

import torch

from benchmarks.coverage.measure import rows_of
from benchmarks.coverage.row import Row
from benchmarks.coverage.zoos import zoo

__all__ = ["Limits", "measured"]

# Imported once, by the server from which every child is forked.
_PRELOADED = ["torch", "torchvision", "timm", "transformers", "segmentation_models_pytorch", "sgdph_fx"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one model may use: seconds, and gigabytes of its process's memory."""

    seconds: float
    gigabytes: float


def measured(name: str, model: str, limits: Limits, oracle: int = 0) -> Row:
    """Measure one model. A row comes back even if the process dies.

    Args:
        name: The zoo.
        model: The model's name there.
        limits: Beyond them the process is killed, and the row says so.
        oracle: How many convolutions to test numerically.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_measure, args=(sender, name, model, limits.gigabytes, oracle))
    start = time.monotonic()
    child.start()
    sender.close()
    row = Row(name, model)
    stopped = "the process ended"
    try:
        for row in _received(receiver, start + limits.seconds):  # noqa: B007
            pass
    except TimeoutError:
        stopped = f"not done in {limits.seconds:.0f} s"
        child.kill()
    child.join()
    if row.peak_mb is not None:
        return row
    stopped = f"{stopped}, exit code {child.exitcode}"
    return replace(row, failed="process", reason=stopped, seconds=time.monotonic() - start)


def _received(receiver: Connection, deadline: float) -> Iterator[Row]:
    with receiver:
        while receiver.poll(max(deadline - time.monotonic(), 0)):
            try:
                yield receiver.recv()
            except EOFError:
                return
    raise TimeoutError


def _measure(sender: Connection, name: str, model: str, gigabytes: float, oracle: int) -> None:
    torch.set_num_threads(1)
    limit = int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    origin = zoo(name)
    row = Row(name, model)
    with contextlib.suppress(
        BrokenPipeError
    ):  # the parent has stopped waiting, and is about to kill this process
        for row in rows_of(name, model, lambda batch: origin.sample(model, batch), oracle):
            sender.send(row)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        sender.send(replace(row, peak_mb=peak))
