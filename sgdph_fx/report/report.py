"""The report: a plan with its counts, in words, as tables, and in every format."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from sgdph_fx.errors import PlanError
from sgdph_fx.plan.plan import Plan
from sgdph_fx.report import dot
from sgdph_fx.report.digest import digest
from sgdph_fx.report.graph_view import GraphView
from sgdph_fx.report.html import html
from sgdph_fx.report.page.assemble import page
from sgdph_fx.report.shown import Shown
from sgdph_fx.report.summary import Check, Summary, headline, summarize
from sgdph_fx.report.tables import Document, tables
from sgdph_fx.report.terminal import FILE, Screen

__all__ = ["Report"]

VERSION = 1
# What is read at once of a printed page.
PAPER = Screen(None, 60)


@dataclass(frozen=True, slots=True, repr=False)
class Report(Shown):
    """What was decided about a model, and why.

    ``print(report)`` shows what fits on a screen, and ``report.show(full=True)`` every row.

    Args:
        plan: The decision.
        check: How far the prepared model is from the original; None where that was not measured.
        graph_view: The model as a graph, for the page; None where the model was not read for this report.

    Example:
        >>> from torch import nn
        >>> from sgdph_fx import prepare
        >>> report = prepare(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())).report
        >>> report.summary.decoupled, report.summary.second_order_parameters
        (1, 2)
        >>> report.to_text(full=True).splitlines()[-1]
        '0.direction  8x3x3x3  1      direction  Conv2d  direction of the bare Conv2d 0'
    """

    plan: Plan
    check: Check | None = None
    graph_view: GraphView | None = field(default=None, repr=False, compare=False)

    @property
    def summary(self) -> Summary:
        """The counts behind the headline."""
        return summarize(self.plan)

    @property
    def headline(self) -> str:
        """The report in a few sentences."""
        return " ".join(Document(self._headline(), ()).headline)

    def to_json(self) -> str:
        """Indented ASCII JSON: ``version``, ``headline``, ``summary``, ``check``, and ``plan`` as saved."""
        summary = self.summary
        data = {
            "version": VERSION,
            "headline": self.headline,
            "summary": {**asdict(summary), "second_order_share": summary.second_order_share},
            "check": None if self.check is None else asdict(self.check),
            "plan": json.loads(self.plan.to_json()),
        }
        return json.dumps(data, indent=2) + "\n"

    def to_dot(self) -> str:
        """The model as a graph for Graphviz, with a cluster for each module.

        Raises:
            PlanError: if the report has no graph_view, because it was made from a plan alone.
        """
        if self.graph_view is None:
            raise PlanError(
                "This report was made from a plan alone, which does not hold the model's graph: take the report "
                "that `prepare(model)` returns."
            )
        return dot.dot(self.plan, self.graph_view)

    def to_html(self) -> str:
        """One self-contained page: the model as a graph that folds, the tables, and the plan to copy.

        It asks for nothing from any network. Write it to a file and open that in a browser. Without JavaScript and on
        paper it begins with a summary.
        """
        return page(self.plan, self.summary, self._digest(PAPER), self.graph_view)

    def __repr__(self) -> str:
        return f"<Report {Document(self._headline(), ()).headline[0]}>"

    def _repr_html_(self) -> str:
        return html(self._document(), self._digest(FILE))

    def _document(self) -> Document:
        return Document(self._headline(), tables(self.plan))

    def _digest(self, screen: Screen) -> Document:
        return digest(self.plan, self._headline(), screen)

    def _headline(self) -> tuple[str, ...]:
        return headline(self.plan, self.summary, self.check)
