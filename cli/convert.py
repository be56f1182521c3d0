"""``sgdph-convert convert``, the default: make a model ready for SGD-PH, and say what was decided."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .diff import print_changes
from .errors import OtherPlanError
from .examples import WithExamples
from .options import (
    FILES,
    NEW_FOLDER,
    PLAN_FILE,
    Asked,
    form_options,
    model_options,
    traceback_option,
)
from .overwriting import refuse_to_overwrite
from .pager import page
from .progress import progress
from .streams import QUIET, remark, results
from .working import working

if TYPE_CHECKING:
    from torch import nn

    from sgdph_fx.plan.plan import Plan
    from sgdph_fx.report import Report
    from sgdph_fx.report.prepared import Prepared
    from sgdph_fx.trace import ExampleInputs

__all__ = ["convert"]


@click.command("convert", cls=WithExamples)
@model_options
@click.option("--output", type=NEW_FOLDER, metavar="DIR", help=f"Write {', '.join(FILES)} there.")
@click.option(
    "--check",
    type=PLAN_FILE,
    metavar="PLAN",
    help="Compare with a reviewed plan instead of printing the report: exit code 1 if anything is treated otherwise.",
)
@form_options(
    full="Print every row, through a pager on a terminal.",
    json="Print the report as JSON.",
    markdown="Print it as Markdown, for a pull request.",
    dot="Print the model's graph for Graphviz.",
    quiet="Print nothing but errors.",
)
@traceback_option
def convert(
    asked: Asked, output: Path | None, check: Path | None, form: str | None, with_traceback: bool
) -> None:
    """Make MODEL ready for SGD-PH, and print what gets Hessian treatment and why.

    Examples:
      sgdph-convert model.py
      sgdph-convert model.py:small --input 1,3,32,32 --output converted
      sgdph-convert 'model.py:build(width=32)' --input pixel_values=1,3,32,32
      sgdph-convert torchvision:vgg19 --weights vgg19.safetensors
      sgdph-convert model.py --policy absorbing --rule 'head.*=first-order'
      sgdph-convert model.py --check reviewed/plan.json
      sgdph-convert model.py --dot | dot -Tsvg > model.svg
    """
    click.get_current_context().meta[QUIET] = form == "quiet"
    if output is not None:
        refuse_to_overwrite((asked.weights,), (output / name for name in FILES))
    with contextlib.ExitStack() as stack:
        with working(with_traceback), progress("Preparing"):
            if output is not None:
                _reserve(stack, output)
            reviewed = None if check is None else _reviewed(check)
            prepared = _prepared(asked)
        if reviewed is not None:
            _compare(reviewed, prepared.report.plan, form)
        if output is not None:
            with working(with_traceback), progress("Writing"):
                _write(prepared, output)
    if reviewed is None:
        _show(prepared.report, form)
    if output is not None:
        remark(f"Wrote {', '.join(FILES)} to {output}.")


def _reserve(stack: contextlib.ExitStack, output: Path) -> None:
    """Before the work: do not let anyone wait for what cannot be written afterwards."""
    from .file_set import reserved

    stack.enter_context(reserved(output, FILES))


def _reviewed(check: Path) -> Plan:
    from .plans import saved_plan

    return saved_plan(check)


def _prepared(asked: Asked) -> Prepared:
    from sgdph_fx.pipeline import prepare

    from .reading import read_model

    def stage(model: nn.Module, inputs: ExampleInputs | None) -> Prepared:
        return prepare(model, inputs, config=asked.config, inplace=True)

    return read_model(asked, stage)


def _write(prepared: Prepared, output: Path) -> None:
    from .output import write_reserved

    write_reserved(prepared, output)


def _compare(reviewed: Plan, plan: Plan, form: str | None) -> None:
    """Raise if the plans treat anything differently, after saying what on standard output."""
    from sgdph_fx.plan.diff import plan_changes
    from sgdph_fx.plan.wording import counted

    found = plan_changes(reviewed, plan)
    treated = [change for change in found if change.what != "model"]
    if not treated:
        renamed = (
            f" Its class was {reviewed.model} and is {plan.model}, which decides nothing." if found else ""
        )
        remark(f"The model is treated as in the reviewed plan.{renamed}")
        return
    if form != "quiet":
        print_changes(found, form)
    raise OtherPlanError(
        f"{counted(len(treated), 'difference')} to the reviewed plan, so it no longer says how this model is trained. "
        "If the new plan is as it should be, save it with --output in place of the old one."
    )


def _show(report: Report, form: str | None) -> None:
    stream = results()
    if form == "full":
        page(report.to_text(stream, full=True), stream, shutil.get_terminal_size().lines)
    elif form is None:
        report.show(stream)
    elif form != "quiet":
        text = {"json": report.to_json, "markdown": report.to_markdown, "dot": report.to_dot}[form]()
        stream.write(text)
