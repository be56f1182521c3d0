"""Put the page together: markup, styles, scripts and data in one file that asks for nothing from any network.

The graph is laid out by dagre, which takes 48 KiB of each page and lays out what is unfolded in milliseconds. Weighed
beside it: cytoscape (with its own dagre five times as large, and drawn on a canvas, where neither a style sheet nor a
screen reader gets at a node), ELK (1.6 MB) and Graphviz as WebAssembly (1.4 MB). What is drawn is SVG.
"""

from __future__ import annotations

from functools import cache
from html import escape
from importlib.resources import files

from sgdph_fx.errors import printable
from sgdph_fx.plan.plan import Plan
from sgdph_fx.report.graph_view import GraphView
from sgdph_fx.report.html import plain_tables
from sgdph_fx.report.page.data import page_data
from sgdph_fx.report.summary import Summary, facts
from sgdph_fx.report.tables import Document

__all__ = ["page"]

STYLES = ("style.css", "graph.css", "table.css", "print.css")
# In the order in which they run: each uses those before it.
SCRIPTS = (
    *("model.js", "visible.js", "layout.js", "draw.js", "details.js", "zoom.js"),
    *("graph.js", "tables.js", "rows.js", "search.js", "main.js"),
)


def page(plan: Plan, summary: Summary, digest: Document, graph_view: GraphView | None) -> str:
    """The whole document.

    Args:
        plan: The plan.
        summary: Its counts.
        digest: The report on one screen, which is what is read on paper and without JavaScript.
        graph_view: The model as a graph; None leaves the graph out.
    """
    parts = {
        "TITLE": escape(printable(f"{plan.model}: SGD with Partial Hessian")),
        "STYLE": "".join(map(_read, STYLES)),
        # A long name breaks after a dot.
        "MODEL": escape(printable(plan.model)).replace(".", ".<wbr>"),
        "FACTS": "".join(f"<div><dt>{what}</dt><dd>{value}</dd></div>" for value, what in facts(summary)),
        "WORDS": "".join(f"<p>{escape(sentence)}</p>" for sentence in digest.headline),
        "SUMMARY": plain_tables(digest),
        "DATA": page_data(plan, graph_view),
        "LIBRARY": _library() if graph_view is not None else "",
        "SCRIPTS": "\n".join(f"<script>\n{_read(name)}</script>" for name in SCRIPTS),
    }
    before, *pieces = _read("page.html").split("{{")
    ends = (piece.split("}}", 1) for piece in pieces)
    return before + "".join(parts[name] + rest for name, rest in ends)


def _library() -> str:
    """The vendored library behind its licence, without its reference to a source map, which is not here."""
    code = "".join(
        line for line in _read("vendor/dagre.min.js").splitlines(keepends=True) if not line.startswith("//#")
    )
    return f"<script>\n/*! dagre\n{_read('vendor/dagre.LICENSE.txt')}*/\n{code}</script>"


@cache
def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
