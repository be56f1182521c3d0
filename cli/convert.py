"""``sgdph-convert convert``, the default: make a model ready for SGD-PH, and say what was decided."""

from __future__ import annotations

from pathlib import Path

import click
from torch import nn

from sgdph_fx.pipeline import Prepared, prepare
from sgdph_fx.trace import ExampleInputs

from .options import Asked, model_options, traceback_option
from .output import FILES, write
from .reading import read_model
from .working import working

__all__ = ["convert"]


@click.command("convert")
@model_options
@click.option(
    "--output",
    type=click.Path(file_okay=False, writable=True, path_type=Path),
    metavar="DIR",
    help=f"Write {', '.join(FILES)} there.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@traceback_option
def convert(asked: Asked, output: Path | None, as_json: bool, with_traceback: bool) -> None:
    """Make MODEL ready for SGD-PH, and print what gets Hessian treatment and why.

    \b
    Examples:
      sgdph-convert model.py
      sgdph-convert model.py:small --input 1,3,32,32 --output converted
      sgdph-convert torchvision.models:vgg19 --weights vgg19.safetensors
      sgdph-convert model.py --policy absorbing --rule 'head.*=first-order'
    """
    with working(with_traceback):
        prepared = _prepared(asked)
        if output is not None:
            write(prepared, output)
    _show(prepared, as_json)
    if output is not None:
        click.echo(f"Wrote {', '.join(FILES)} to {output}.", err=True)


def _prepared(asked: Asked) -> Prepared:
    def stage(model: nn.Module, inputs: ExampleInputs | None) -> Prepared:
        return prepare(model, inputs, config=asked.config, inplace=True)

    return read_model(asked, stage)


def _show(prepared: Prepared, as_json: bool) -> None:
    if as_json:
        click.echo(prepared.report.to_json(), nl=False)
    else:
        prepared.report.show()
