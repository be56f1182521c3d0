"""The model's graph in the language of Graphviz."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sgdph_fx.errors import printable
from sgdph_fx.plan.plan import Plan
from sgdph_fx.report.graph_view import GraphView, Part

__all__ = ["dot"]

SECOND_ORDER = 'fillcolor="#e6ecff", color="#2f55d4"'
BARE = 'color="#e08a2c", penwidth=2'


@dataclass(frozen=True, slots=True)
class _Inside:
    """What stands directly in one module: places of parts, and paths of modules."""

    parts: list[int] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)


def dot(plan: Plan, graph_view: GraphView) -> str:
    """A directed graph with a cluster for each module; second-order parts are filled, bare convolutions marked."""
    marks, inside = _marks(plan), _inside(graph_view)
    lines = [
        "digraph model {",
        'node [shape=box, style="rounded,filled", fillcolor=white, fontname=monospace];',
        *_module("", graph_view, inside, marks),
        *(f"p{a} -> p{b};" for a, b in graph_view.edges),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _inside(graph_view: GraphView) -> Mapping[str, _Inside]:
    inside = {path: _Inside() for path in graph_view.modules}
    for place, part in enumerate(graph_view.parts):
        inside[_holder(part.scope, graph_view.modules)].parts.append(place)
    for path in graph_view.modules:
        if path:
            inside[_holder(path.rpartition(".")[0], graph_view.modules)].modules.append(path)
    return inside


def _module(
    path: str, graph_view: GraphView, inside: Mapping[str, _Inside], marks: Mapping[str, str]
) -> Iterator[str]:
    for place in inside[path].parts:
        part = graph_view.parts[place]
        yield f"p{place} [label={_quoted(_label(part))}{marks.get(part.path, '') if part.path else ''}];"
    for inner in inside[path].modules:
        yield f"subgraph {_quoted(f'cluster_{inner}')} {{"
        yield f"label={_quoted(f'{inner} {graph_view.modules[inner]}')};"
        yield from _module(inner, graph_view, inside, marks)
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
