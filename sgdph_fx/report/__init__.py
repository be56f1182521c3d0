"""Tell a person what was decided about a model, and why."""

from sgdph_fx.report.report import Report
from sgdph_fx.report.summary import Check, Summary

__all__ = ["Check", "Report", "Summary"]
