"""``DistributedDataParallel`` waits for the first backward pass, and must not take an extra one for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch.autograd.graph import Node

from sgdph_fx.curvature.custom_functions import full_name

__all__ = ["extra_pass", "sinks"]

_SINK = "torch.nn.parallel.distributed._DDPSink"
_SENDS = "_static_graph_delay_allreduce_enqueued"


def sinks(among: Iterable[Node]) -> list[Node]:
    """The nodes by which a wrapped model learns of backward passes."""
    return [node for node in among if full_name(node) == _SINK]


@contextmanager
def extra_pass(among: Sequence[Node]) -> Iterator[None]:
    """Let a backward pass that writes no gradients go unnoticed.

    With ``static_graph=True`` all gradients of the first step are averaged once the first backward pass has ended. If
    that is an extra pass, there are none yet, and the processes drift apart.

    Args:
        among: The :func:`sinks` that are run inside.
    """
    models: set[Any] = {_model(node) for node in among} - {None}
    waiting = [model for model in models if model.static_graph and not getattr(model, _SENDS)]
    for model in waiting:
        setattr(model, _SENDS, True)
    try:
        yield
    finally:
        for model in waiting:
            setattr(model, _SENDS, False)


def _model(node: Any) -> Any:
    return node.ddp_weakref()
