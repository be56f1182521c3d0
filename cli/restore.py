"""``sgdph-convert restore``: a checkpoint of the prepared model as one of the plain model."""

from __future__ import annotations

from pathlib import Path

import click

from .examples import WithExamples
from .options import NEW_FILE, OLD_FILE, PLAN_FILE, traceback_option
from .overwriting import refuse_to_overwrite
from .progress import progress
from .streams import remark
from .working import working

__all__ = ["restore"]


@click.command("restore", cls=WithExamples)
@click.argument("checkpoint", type=OLD_FILE)
@click.option(
    "--plan",
    "plan_file",
    required=True,
    type=PLAN_FILE,
    metavar="FILE",
    help="The plan that the model was prepared by: plan.json of --output.",
)
@click.option(
    "--output",
    required=True,
    type=NEW_FILE,
    metavar="FILE",
    help="Where to write the weights: .safetensors, or any other name for torch.save.",
)
@traceback_option
def restore(checkpoint: Path, plan_file: Path, output: Path, with_traceback: bool) -> None:
    """Turn CHECKPOINT, saved while the prepared model trained, into weights of the plain model.

    Each direction and gain becomes one weight again, under its original name; other weights stay as they are. The
    model's code is not needed. A file that is there already is replaced once the new one is complete.

    Example:
      sgdph-convert restore epoch90.pt --plan converted/plan.json --output plain.safetensors
    """
    refuse_to_overwrite((checkpoint, plan_file), (output,))
    with working(with_traceback), progress("Restoring"):
        from .plain_weights import write_plain_weights

        write_plain_weights(checkpoint, plan_file, output)
    remark(f"Wrote {output}.")
