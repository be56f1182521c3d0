"""What a trace is: a ``torch.fx.Graph``, whichever way it was made.

Nodes are those of torch.fx. Modules that the rules know are single ``call_module`` nodes; all others
are looked into. Beside each node, in ``node.meta``, stands what the later stages need:

* ``"source"``: ``file.py:line`` of the call in the person's own code, where known;
* ``"scope"``: path of the innermost module that was looked into when it happened, ``""`` for the model itself,
  None for what happened outside it;
* ``"frozen"``: for a module, whether it stays in evaluation mode while the model trains;
* ``"shape"``: for a recorded run, the shape of the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import fx

__all__ = ["Trace", "add_node", "same_operations"]


@dataclass(frozen=True, slots=True)
class Trace:
    """One reading of the model.

    Args:
        graph: The operations in the order in which they run.
        way: ``"symbolic"`` or ``"recorded"``.
        training: Whether the model was in training mode.
        unseen: How many convolutions ran inside each TorchScript module, by its path, of a recorded run.
    """

    graph: fx.Graph
    way: Literal["symbolic", "recorded"]
    training: bool
    unseen: Mapping[str, int] = field(default_factory=dict)


def add_node(
    graph: fx.Graph, kind: str, target: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
) -> fx.Node:
    """A node at the end of ``graph``.

    ``Graph.create_node`` searches what it is given for symbolic sizes, and makes names with regular expressions; that
    takes longer than all else, and without arguments and with a name it does neither.
    """
    name = target if isinstance(target, str) else getattr(target, "__name__", "function")
    node = graph.create_node(kind, target, name=name.replace(".", "_"))
    if args:
        node.args = args
    if kwargs:
        node.kwargs = kwargs
    return node


def same_operations(one: fx.Graph, other: fx.Graph) -> bool:
    """Whether two graphs consist of the same operations on the same operands, in the same order."""
    return len(one.nodes) == len(other.nodes) and all(
        (a.op, a.target, str(a.args), str(a.kwargs)) == (b.op, b.target, str(b.args), str(b.kwargs))
        for a, b in zip(one.nodes, other.nodes, strict=True)
    )
