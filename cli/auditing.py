"""Run an audit as it was asked for, and write what it found."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sgdph_fx.audits import Audit, audit
from sgdph_fx.audits.result import require_drawable
from sgdph_fx.errors import AuditError
from sgdph_fx.pipeline import prepare
from sgdph_fx.plan.wording import counted
from sgdph_fx.report.files import write_text
from sgdph_fx.trace import ExampleInputs

from .batch import doubled, first_of, read_batch
from .errors import NotWrittenError
from .losses import loss_function
from .options import Asked
from .progress import Line
from .reading import SEED, filled_model, read_model
from .streams import is_dumb, remark

__all__ = ["audited", "require_drawable", "write"]

# With fewer products or less time than this nobody needs to be told beforehand.
FEW_SECONDS = 20.0
BAR = 30


def audited(
    asked: Asked,
    data: Path | None,
    batch: int | None,
    loss: str,
    sample: int | None,
    channels: int | None,
    draws: int,
    seed: int,
    double: bool,
) -> Audit:
    """Audit the model on the batch in ``data``, or on a random one."""
    torch.manual_seed(SEED)  # the loss may stand in the model's file, which is imported once
    loss_fn = loss_function(loss, seed)

    def measured(model: nn.Module, inputs: Any, targets: Any) -> Audit:
        if double:
            model, inputs, targets = model.double(), doubled(inputs), doubled(targets)
        if not model.training:
            model.train()
        prepared = prepare(model, inputs, config=asked.config, inplace=True)
        with _progress() as told:
            return audit(
                prepared,
                loss_fn,
                (inputs, targets),
                sample=sample,
                channels=channels,
                draws=draws,
                seed=seed,
                progress=told,
            )

    if data is not None:
        return measured(filled_model(asked), *read_batch(data, batch))

    def on_random_numbers(model: nn.Module, inputs: ExampleInputs | None) -> Audit:
        return measured(model, inputs, None)

    sized = replace(asked, inputs=tuple(first_of(given, batch) for given in asked.inputs))
    return read_model(sized, on_random_numbers)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Say how long it is going to take, once that is known, and show on a terminal how far it is."""
    stream = sys.stderr
    line = Line(stream) if stream is not None and stream.isatty() and not is_dumb() else None
    started: list[tuple[float, int]] = []

    def told(done: int, total: int) -> None:
        started.append((time.monotonic(), done))
        if len(started) == 2:  # the first product has warmed up what the others use
            _announce(total, (started[1][0] - started[0][0]) / (started[1][1] - started[0][1]), line)
        if line is not None:
            filled = BAR * done // total
            line.show(f"Hessian-vector products [{'#' * filled}{'-' * (BAR - filled)}] {done:,}/{total:,}")

    try:
        yield told
    finally:
        if line is not None:
            line.clear()


def _announce(total: int, seconds_each: float, line: Line | None) -> None:
    seconds = total * seconds_each
    if seconds < FEW_SECONDS:
        return
    if line is not None:
        line.clear()
    about = f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
    remark(
        f"{counted(total, 'Hessian-vector product')}, about {about}. Fewer: --sample K audits K of the parameters, "
        "--channels K measures K numbers of each."
    )


def write(found: Audit, json_file: Path | None, plot_file: Path | None) -> None:
    """Write the numbers and the plot to the files that were asked for.

    Raises:
        NotWrittenError: if that fails; a file that was there is as it was.
    """
    try:
        if json_file is not None:
            write_text(json_file, found.to_json())
        if plot_file is not None:
            found.plot(plot_file)
    except (OSError, AuditError) as error:
        raise NotWrittenError(f"The audit was made, but could not be written: {error}") from error
