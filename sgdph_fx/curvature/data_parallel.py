"""Wrapped models take a backward pass for one that brings gradients, and must not take an extra one for it.

``DistributedDataParallel`` waits for the first. A module that ``fully_shard`` has cut into pieces averages, after each,
what micro-batches before it have left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch.autograd.graph import Node

from sgdph_fx.curvature.custom_functions import full_name

__all__ = ["extra_pass", "sharded_modules", "sinks"]

_SINK = "torch.nn.parallel.distributed._DDPSink"
_SENDS = "_static_graph_delay_allreduce_enqueued"
_AVERAGES = ("reduce_grads", "all_reduce_grads")

_SHARDS: ContextVar[tuple[Any, ...]] = ContextVar("_SHARDS", default=())


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
    units = [unit for shard in _SHARDS.get() for unit in _units(shard)]
    averaging = [(unit, name, getattr(unit, name)) for unit in units for name in _AVERAGES]
    for model in waiting:
        setattr(model, _SENDS, True)
    for unit, name, _ in averaging:
        setattr(unit, name, False)
    try:
        yield
    finally:
        for model in waiting:
            setattr(model, _SENDS, False)
        for unit, name, before in averaging:
            setattr(unit, name, before)


@contextmanager
def sharded_modules(shards: Iterable[Any]) -> Iterator[None]:
    """Say which modules of ``fully_shard`` the extra passes inside run through: no graph leads to them."""
    token = _SHARDS.set(tuple(shards))
    try:
        yield
    finally:
        _SHARDS.reset(token)


def _units(shard: Any) -> list[Any]:
    """What holds the parameters of one such module; earlier versions of torch have one of them."""
    state = shard._get_fsdp_state()
    found = getattr(state, "_fsdp_param_groups", None)
    return [unit for unit in (found or [getattr(state, "_fsdp_param_group", None)]) if unit is not None]


def _model(node: Any) -> Any:
    return node.ddp_weakref()
