"""Functions written in Python, which torch's own modules put into the graph, by their full names; and the one of ours.

Some only announce how far the backward pass has come, to whoever reduces gradients or frees parameters then: their
backward must run once and in its turn, so tangents walk around it. Of others the second derivative is known to be
out of reach, and to find that out by trying would leave processes waiting for each other.
"""

from __future__ import annotations

from collections.abc import Mapping

from sgdph_fx.curvature.forward_over_reverse import weight_norm
from sgdph_fx.curvature.forward_over_reverse.rule import (
    LINEAR,
    NONLINEAR,
    BackwardNode,
    ForwardNode,
    Rule,
    Tensors,
)
from sgdph_fx.curvature.hvp import no_second_derivative

__all__ = ["RULES"]


def _no_sync_batch_norm(fwd: ForwardNode) -> Tensors:
    weight = fwd.node.saved_tensors[1]  # type: ignore[attr-defined]
    channels = "" if weight is None else f" of {weight.numel()} channels"
    raise no_second_derivative(
        f"torch.nn.SyncBatchNorm{channels}, whose statistics are summed over processes in its backward pass"
    )


_ANNOUNCEMENT = Rule(lambda fwd: fwd.tangents, lambda bwd: bwd.dg, LINEAR)


def _never(bwd: BackwardNode) -> Tensors:
    raise AssertionError("refused in the forward sweep")


RULES: Mapping[str, Rule] = {
    "sgdph_fx.transform.filters.Composition": weight_norm.RULE,
    "torch.nn.parallel.distributed._DDPSink": _ANNOUNCEMENT,
    "torch.distributed.fsdp._fully_shard._fsdp_param_group.RegisterPostBackwardFunction": _ANNOUNCEMENT,
    "torch.nn.modules._functions.BackwardHookFunction": _ANNOUNCEMENT,
    "torch.nn.modules._functions.SyncBatchNorm": Rule(_no_sync_batch_norm, _never, NONLINEAR),
}
"""By module and class."""
