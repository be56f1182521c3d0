"""Group norm, y = γ x̂ + β, with γ and β of each channel."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sgdph_fx.curvature.lean.standardize import Rows
from sgdph_fx.curvature.lean.visit import NONLINEAR, Rule, Tensors, Turn, Visit, output_shape, saved, total

__all__ = ["RULES"]


def _rows(visit: Visit) -> Rows:
    node = visit.node
    count = saved(node, "N") * saved(node, "group")
    x, mean, r = (saved(node, name) for name in ("input", "result1", "result2"))
    return Rows(x.reshape(count, -1), mean.reshape(-1, 1), r.reshape(-1, 1))


def _push(visit: Visit) -> Tensors:
    dx, dgain, dbias = visit.tangents
    rows, shape = _rows(visit), output_shape(visit.node)
    out = None if dx is None else _scaled(rows.project(dx), saved(visit.node, "weight"))
    beside = None if dgain is None else _scaled(rows.normalized.view(shape), dgain)
    return [total(out, beside, None if dbias is None else _wide(dbias, len(shape)).expand(shape))]


def _pull(turn: Turn) -> Tensors:
    g, dg, (dx, dgain, _) = turn.g[0], turn.dg[0], turn.tangents
    by_x, by_gain, by_bias = turn.active
    rows, weight = _rows(turn.visit), saved(turn.node, "weight")
    found: list[Tensor | None] = [None, None, _channel_sum(dg) if by_bias else None]
    if by_x:
        h = _scaled(g, weight)
        dh = total(_scaled(dg, weight), None if dgain is None else _scaled(g, dgain))
        found[0] = rows.pull(h, dh, dx) if dx is not None else None if dh is None else rows.project(dh)
    if by_gain:
        passed = None if dg is None else dg * rows.normalized.view(dg.shape)
        found[1] = _channel_sum(total(passed, None if g is None or dx is None else g * rows.project(dx)))
    return found


def _scaled(t: Tensor | None, weight: Tensor | None) -> Tensor | None:
    return t if t is None or weight is None else t * _wide(weight, t.dim())


def _wide(values: Tensor, dims: int) -> Tensor:
    return values.view(1, -1, *[1] * (dims - 2))


def _channel_sum(t: Tensor | None) -> Tensor | None:
    return None if t is None else t.sum([d for d in range(t.dim()) if d != 1])


RULES: Mapping[str, Rule] = {"NativeGroupNormBackward0": Rule(_push, _pull, NONLINEAR, makes=True)}
"""By node."""
