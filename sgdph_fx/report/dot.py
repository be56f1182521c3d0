"""The model's graph in the language of Graphviz."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sgdph_fx.errors import printable
from sgdph_fx.plan.plan import Plan
from sgdph_fx.report.graph_view import GraphView, Part

__all__ = ["dot"]

SECOND_ORDER = 'fillcolor="#e6ecff", color="#2f55d4"'
BARE = 'color="#e08a2c", penwidth=2'


def dot(plan: Plan, graph_view: GraphView) -> str:
    """A directed graph with a cluster for each module; second-order parts are filled, bare convolutions marked."""
    lines = [
        "digraph model {",
        'node [shape=box, style="rounded,filled", fillcolor=white, fontname=monospace];',
        *_module(plan, graph_view, ""),
        *(f"p{a} -> p{b};" for a, b in graph_view.edges),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _module(plan: Plan, graph_view: GraphView, path: str) -> Iterator[str]:
    """The parts that stand in a module, and the modules in it."""
    marks = _marks(plan)
    for place, part in enumerate(graph_view.parts):
        if _holder(part.scope, graph_view.modules) == path:
            yield f"p{place} [label={_quoted(_label(part))}{marks.get(part.path, '') if part.path else ''}];"
    for inner, kind in graph_view.modules.items():
        if inner and _holder(inner.rpartition(".")[0], graph_view.modules) == path:
            yield f"subgraph {_quoted(f'cluster_{inner}')} {{"
            yield f"label={_quoted(f'{inner} {kind}')};"
            yield from _module(plan, graph_view, inner)
            yield "}"


def _holder(scope: str, modules: Mapping[str, str]) -> str:
    while scope not in modules:
        scope = scope.rpartition(".")[0]
    return scope


def _marks(plan: Plan) -> dict[str, str]:
    """Attributes for each module path: of its convolution's verdict, and of its parameters' order."""
    marks = {row.name.rpartition(".")[0]: f", {SECOND_ORDER}" for row in plan.second_order}
    for row in plan.bare:
        marks[row.name] = marks.get(row.name, "") + f', {BARE}, xlabel="bare"'
    return marks


def _label(part: Part) -> str:
    return f"{part.path}\n{part.label}" if part.path else part.label


def _quoted(text: str) -> str:
    escaped = printable(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
