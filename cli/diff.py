"""``sgdph-convert diff``: what is treated otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from .examples import WithExamples
from .options import Asked, form_options, reading_options, traceback_option
from .progress import progress
from .streams import results
from .working import working

if TYPE_CHECKING:
    from sgdph_fx.plan.diff import Change

__all__ = ["diff", "print_changes"]


@click.command("diff", cls=WithExamples)
@click.argument("before", type=click.Path())
@click.argument("after", type=click.Path())
@reading_options
@form_options(json="Print JSON.", markdown="Print a table for a pull request.")
@traceback_option
def diff(before: str, after: str, asked: Asked, form: str | None, with_traceback: bool) -> None:
    """Say what is treated otherwise in AFTER than in BEFORE.

    Each of them is a plan (a file that ends in .json) or a model. Only what is treated how counts: names,
    verdicts, orders, roles and shapes, and neither source lines nor the wording of reasons.

    Examples:
      sgdph-convert diff reviewed/plan.json model.py
      sgdph-convert diff old.json new.json --markdown
      sgdph-convert diff model.py:small model.py:large
    """
    with working(with_traceback), progress("Comparing"):
        found = _changes(before, after, asked)
    print_changes(found, form)


def _changes(before: str, after: str, asked: Asked) -> Sequence[Change]:
    from sgdph_fx.plan.diff import plan_changes

    from .plans import read_plan

    return plan_changes(read_plan(before, asked), read_plan(after, asked))


def print_changes(found: Sequence[Change], form: str | None) -> None:
    """Print differences as JSON, as Markdown, or else as text."""
    from sgdph_fx.report.plan_diff import as_json, as_markdown, as_text

    forms = {"json": as_json, "markdown": as_markdown}
    results().write(forms.get(form or "text", as_text)(found))
