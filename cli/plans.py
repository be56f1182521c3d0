"""A plan from what a person typed: a saved one, or a model that is analysed for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from torch import nn

from sgdph_fx.errors import PlanFormatError
from sgdph_fx.pipeline import analyze
from sgdph_fx.plan.plan import Plan
from sgdph_fx.trace import ExampleInputs

from .file_set import finish_interrupted
from .options import Asked
from .reading import read_model

__all__ = ["read_plan", "saved_plan"]


def read_plan(place: str, asked: Asked) -> Plan:
    """The plan in the file ``place`` if that ends in ``.json``, else that of the model ``place``."""
    if place.endswith(".json"):
        return saved_plan(Path(place))

    def stage(model: nn.Module, inputs: ExampleInputs | None) -> Plan:
        return analyze(model, inputs, config=asked.config)

    return read_model(replace(asked, model=place), stage)


def saved_plan(path: Path) -> Plan:
    """The plan in a file.

    Raises:
        PlanFormatError: if there is none; the message names the file, as two may have been given.
    """
    finish_interrupted(path.parent)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PlanFormatError(f"The plan {path} could not be read: {reason}") from error
    try:
        return Plan.from_json(text)
    # A text that was made to do harm fails in ways of its own: nested too deep, or with numbers too long to read.
    except Exception as error:
        raise PlanFormatError(f"The plan {path} cannot be used: {error}{_if_a_report(text)}") from error


def _if_a_report(text: str) -> str:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(content, dict) or not {"plan", "summary"} <= content.keys():
        return ""
    return " It is a report, as --json prints it: write a plan with --output, or save its part 'plan' alone."
