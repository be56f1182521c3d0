"""``sgdph-convert diff``: what is treated otherwise."""

from __future__ import annotations

import click

from sgdph_fx.plan.diff import plan_changes
from sgdph_fx.report.plan_diff import as_json, as_markdown, as_text

from .options import Asked, reading_options, traceback_option
from .plans import read_plan
from .progress import progress
from .working import working

__all__ = ["FORMS", "diff"]

FORMS = {"text": as_text, "json": as_json, "markdown": as_markdown}


@click.command("diff")
@click.argument("before", type=click.Path())
@click.argument("after", type=click.Path())
@reading_options
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option("--markdown", "form", flag_value="markdown", help="Print a table for a pull request.")
@traceback_option
def diff(before: str, after: str, asked: Asked, form: str | None, with_traceback: bool) -> None:
    """Say what is treated otherwise in AFTER than in BEFORE.

    Each of them is a plan (a file that ends in .json) or a model. Only what is treated how counts: names,
    verdicts, orders, roles and shapes, and neither source lines nor the wording of reasons.

    \b
    Examples:
      sgdph-convert diff reviewed/plan.json model.py
      sgdph-convert diff old.json new.json --markdown
      sgdph-convert diff model.py:small model.py:large
    """
    with working(with_traceback), progress("Comparing"):
        found = plan_changes(read_plan(before, asked), read_plan(after, asked))
    click.echo(FORMS[form or "text"](found), nl=False)
