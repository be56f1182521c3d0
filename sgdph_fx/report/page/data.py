"""What the page shows, as plain data: its scripts read nothing else."""

from __future__ import annotations

import json
from typing import Any

from sgdph_fx.plan.hint_codes import HINTS
from sgdph_fx.plan.plan import Plan
from sgdph_fx.report.graph_view import GraphView, Part

__all__ = ["page_data"]


def page_data(plan: Plan, graph_view: GraphView | None) -> str:
    """JSON that may stand inside an element ``<script>``: no letter of it can end that element."""
    data = {
        "plan": json.loads(plan.to_json()),
        "meanings": {hint.code: HINTS[hint.code] for hint in plan.hints if hint.code in HINTS},
        "graphView": None if graph_view is None else _graph_view(graph_view),
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _graph_view(graph_view: GraphView) -> dict[str, Any]:
    return {
        "parts": [_part(part) for part in graph_view.parts],
        "edges": graph_view.edges,
        "routes": graph_view.routes,
        "modules": dict(graph_view.modules),
    }


def _part(part: Part) -> list[Any]:
    """Without their names the parts of a large model take a third of the room."""
    return [part.kind, part.label, part.path, part.scope, part.source, part.shape]
