"""``sgdph-convert audit``: how diagonal the Hessian of a model is, and what the probes find."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from torch import nn

from sgdph_fx.audits import Audit, audit
from sgdph_fx.pipeline import prepare
from sgdph_fx.trace import ExampleInputs

from .batch import doubled, first_of, read_batch
from .errors import CliError
from .losses import LOSSES, loss_function
from .options import NEW_FILE, Asked, model_options, traceback_option
from .reading import filled_model, read_model
from .working import working

__all__ = ["command"]

COUNT = click.IntRange(min=1)


@click.command("audit")
@model_options
@click.option(
    "--data",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A real batch: the pair (inputs, targets), saved by torch.save. Without it both are random.",
)
@click.option("--batch", type=COUNT, metavar="N", help="Batch size: in place of the first size of each SHAPE, "
              "or the first N samples of --data.")  # fmt: skip
@click.option(
    "--loss",
    default="cross-entropy",
    show_default=True,
    metavar="LOSS",
    help=f"{', '.join(LOSSES)}, or FILE.py:NAME of a function of the model's outputs and the targets.",
)
@click.option("--sample", type=COUNT, metavar="K", help="Audit K second-order parameters, drawn by --seed.")
@click.option("--channels", type=COUNT, metavar="K", help="Measure at most K numbers of each parameter.")
@click.option(
    "--draws", type=COUNT, default=8, show_default=True, help="Rademacher probes of each parameter."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides every draw.")
@click.option(
    "--double", is_flag=True, help="Compute in float64, where rounding is told best from curvature."
)
@click.option("--json", "json_file", type=NEW_FILE, metavar="FILE", help="Write all numbers as JSON.")
@click.option(
    "--plot",
    "plot_file",
    type=NEW_FILE,
    metavar="FILE",
    help="Draw a plot, in the format of its suffix; needs matplotlib.",
)
@traceback_option
def command(
    asked: Asked, json_file: Path | None, plot_file: Path | None, with_traceback: bool, **choices: Any
) -> None:
    """Measure how far the Hessian of each second-order parameter is from diagonal, and each probe from the truth.

    The model is prepared as for training, and run once in training mode on a batch. With nothing but --input
    the batch is random numbers with random targets: fit to see how it works, and where `ones` finds nothing;
    numbers to rely on need --data and trained --weights.

    \b
    Examples:
      sgdph-convert audit model.py --input 32,3,32,32
      sgdph-convert audit model.py:small --data batch.pt --weights trained.pt --plot audit.png
      sgdph-convert audit torchvision.models:resnet18 --input 8,3,64,64 --sample 5 --channels 16
    """
    if asked.shapes == () and choices["data"] is None:
        raise click.UsageError("A batch is needed: --input SHAPE for random numbers, or --data FILE.")
    if asked.shapes and choices["data"] is not None:
        raise click.UsageError("--input and --data both say what the batch is; give one of them.")
    with working(with_traceback):
        found = _audited(asked, **choices)
    # Shown first: an audit may have taken hours, and a full disk must not take it away.
    found.show()
    with working(with_traceback):
        _write(found, json_file, plot_file)


def _audited(
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
    loss_fn = loss_function(loss, seed)

    def measured(model: nn.Module, inputs: Any, targets: Any) -> Audit:
        if double:
            model, inputs, targets = model.double(), doubled(inputs), doubled(targets)
        if not model.training:
            model.train()
        prepared = prepare(model, inputs, config=asked.config, inplace=True)
        with _bar() as told:
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

    return read_model(
        replace(asked, shapes=tuple(first_of(shape, batch) for shape in asked.shapes)), on_random_numbers
    )


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on standard error, where a person sees it."""
    if not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=1, label="Hessian-vector products", file=sys.stderr, show_pos=True) as bar:

        def told(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield told


def _write(found: Audit, json_file: Path | None, plot_file: Path | None) -> None:
    try:
        if json_file is not None:
            json_file.write_text(found.to_json(), encoding="utf-8")
        if plot_file is not None:
            found.plot(plot_file)
    except (OSError, ValueError) as error:
        # matplotlib's ValueError names the formats that it knows.
        raise CliError(f"The audit was made, but could not be written: {error}") from error
