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

from dataclasses import dataclass
from typing import Literal

from torch import fx

__all__ = ["Trace"]


@dataclass(frozen=True, slots=True)
class Trace:
    """One reading of the model.

    Args:
        graph: The operations in the order in which they run.
        way: ``"symbolic"`` or ``"recorded"``.
        training: Whether the model was in training mode.
        either_mode: Whether the other mode would have given the same graph, because nothing that was run asks.
    """

    graph: fx.Graph
    way: Literal["symbolic", "recorded"]
    training: bool
    either_mode: bool = False
