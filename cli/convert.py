"""``sgdph-convert convert``, the default: make a model ready for SGD-PH, and say what was decided."""

from __future__ import annotations

from pathlib import Path

import click
from torch import nn

from sgdph_fx.pipeline import Prepared, prepare
from sgdph_fx.plan.diff import plan_changes
from sgdph_fx.plan.plan import Plan
from sgdph_fx.report import Report
from sgdph_fx.trace import ExampleInputs

from .diff import FORMS
from .errors import OtherPlanError
from .options import Asked, model_options, traceback_option
from .output import FILES, write
from .plans import saved_plan
from .progress import progress
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
@click.option(
    "--check",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="PLAN",
    help="Compare with a reviewed plan instead of printing the report: exit code 1 if anything is treated otherwise.",
)
@click.option("--json", "form", flag_value="json", help="Print the report as JSON.")
@click.option("--markdown", "form", flag_value="markdown", help="Print it as Markdown, for a pull request.")
@click.option("--dot", "form", flag_value="dot", help="Print the model's graph for Graphviz.")
@traceback_option
def convert(
    asked: Asked, output: Path | None, check: Path | None, form: str | None, with_traceback: bool
) -> None:
    """Make MODEL ready for SGD-PH, and print what gets Hessian treatment and why.

    \b
    Examples:
      sgdph-convert model.py
      sgdph-convert model.py:small --input 1,3,32,32 --output converted
      sgdph-convert torchvision.models:vgg19 --weights vgg19.safetensors
      sgdph-convert model.py --policy absorbing --rule 'head.*=first-order'
      sgdph-convert model.py --check reviewed/plan.json
      sgdph-convert model.py --dot | dot -Tsvg > model.svg
    """
    with working(with_traceback), progress("Preparing"):
        reviewed = None if check is None else saved_plan(check)
        prepared = _prepared(asked)
    if reviewed is not None:
        _compare(reviewed, prepared.report.plan, form)
    if output is not None:
        with working(with_traceback), progress("Writing"):
            write(prepared, output)
    if reviewed is None:
        _show(prepared.report, form)
    if output is not None:
        click.echo(f"Wrote {', '.join(FILES)} to {output}.", err=True)


def _prepared(asked: Asked) -> Prepared:
    def stage(model: nn.Module, inputs: ExampleInputs | None) -> Prepared:
        return prepare(model, inputs, config=asked.config, inplace=True)

    return read_model(asked, stage)


def _compare(reviewed: Plan, plan: Plan, form: str | None) -> None:
    """Raise if the plans treat anything differently, after saying what on standard output."""
    found = plan_changes(reviewed, plan)
    if not found:
        click.echo("The model is treated as in the reviewed plan.", err=True)
        return
    click.echo(FORMS.get(form or "text", FORMS["text"])(found), nl=False)
    raise OtherPlanError(
        f"{len(found)} difference{'' if len(found) == 1 else 's'} to the reviewed plan, so it no longer says how this "
        "model is trained. If the new plan is as it should be, save it with --output in place of the old one."
    )


def _show(report: Report, form: str | None) -> None:
    if form is None:
        report.show()
    else:
        click.echo(
            {"json": report.to_json, "markdown": report.to_markdown, "dot": report.to_dot}[form](), nl=False
        )
