"""``sgdph-convert audit``: how diagonal the Hessian of a model is, and what the probes find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .examples import WithExamples
from .loss_names import LOSSES
from .options import NEW_FILE, OLD_FILE, Asked, model_options, traceback_option
from .overwriting import refuse_to_overwrite
from .streams import results
from .target import parse_target
from .working import working

__all__ = ["command"]

COUNT = click.IntRange(min=1)


@click.command("audit", cls=WithExamples)
@model_options
@click.option(
    "--data",
    type=OLD_FILE,
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
    "--draws",
    type=COUNT,
    default=8,
    show_default=True,
    metavar="N",
    help="Rademacher probes of each parameter.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Decides every draw.",
)
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
    numbers to rely on need --data and trained --weights. Each number measured costs one Hessian-vector product.
    After the first ones you are told how many there are and about how long they take.

    Examples:
      sgdph-convert audit model.py --input 32,3,32,32
      sgdph-convert audit model.py:small --data batch.pt --weights trained.pt --plot audit.png
      sgdph-convert audit torchvision:resnet18 --input 8,3,64,64 --sample 5 --channels 16
    """
    if asked.inputs == () and choices["data"] is None:
        raise click.UsageError("A batch is needed: --input SHAPE for random numbers, or --data FILE.")
    if asked.inputs and choices["data"] is not None:
        raise click.UsageError("--input and --data both say what the batch is; give one of them.")
    code = [Path(parse_target(text, {}).place).absolute() for text in (asked.model, choices["loss"])]
    refuse_to_overwrite((*code, asked.weights, choices["data"]), (json_file, plot_file))
    with working(with_traceback):
        from .auditing import audited, require_drawable, write

        if plot_file is not None:
            require_drawable(plot_file)
        found = audited(asked, **choices)
    # Shown first: an audit may have taken hours, and a full disk must not take it away.
    found.show(results())
    with working(with_traceback):
        write(found, json_file, plot_file)
