"""Say what was decided about a model, and why: on a terminal, in a notebook, as Markdown, JSON, a graph or a page."""

from sgdph_fx.report.report import Report
from sgdph_fx.report.summary import Check, Summary

__all__ = ["Check", "Report", "Summary"]
