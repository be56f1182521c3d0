"""torchvision's region pooling: linear in the image; the regions get no gradient.

torchvision has no second derivative of these operations, and a linear one needs none. Before 0.27, torchvision
differentiates them in C++, where the arguments cannot be read; there they have no rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sgdph_fx.curvature.forward_over_reverse.operations.linear import linear_vjp_tangent
from sgdph_fx.curvature.forward_over_reverse.rule import LINEAR, ForwardNode, GiveUp, Rule, Tensors

__all__ = ["RULES"]

_HOW = ("spatial_scale", "pooled_height", "pooled_width")
_CALLS: Mapping[str, tuple[str, ...]] = {
    "roi_align": (*_HOW, "sampling_ratio", "aligned"),
    "ps_roi_align": (*_HOW, "sampling_ratio"),
    "ps_roi_pool": _HOW,
}
"""Operation ↦ the names under which its arguments after the image and the regions are kept."""


def _by_call(name: str, arguments: tuple[str, ...]) -> Rule:
    def jvp(fwd: ForwardNode) -> Tensors:
        t, regions, *_ = _read(fwd)
        call: Any = getattr(torch.ops.torchvision, name)
        out = call(t, regions, *(_argument(fwd, argument) for argument in arguments))
        return [out if isinstance(out, Tensor) else out[0]]

    return Rule(jvp, linear_vjp_tangent, LINEAR, owns_output=True)


def _jvp_of_largest(fwd: ForwardNode) -> Tensors:
    t, regions, places = _read(fwd)
    images = t[regions[:, 0].long()].flatten(2)
    taken = images.gather(2, places.flatten(2).long().clamp(min=0)).view(places.shape)
    return [taken.masked_fill_(places < 0, 0)]


def _read(fwd: ForwardNode) -> list[Tensor]:
    """Read ẋ of the image, the regions, and whatever else was saved."""
    tangent, *others = fwd.tangents
    if tangent is None or any(t is not None for t in others):
        raise GiveUp("a pooling of regions that depend on the parameter")
    return [tangent, *fwd.node.saved_tensors]  # type: ignore[attr-defined]


def _argument(fwd: ForwardNode, name: str) -> Any:
    return getattr(fwd.node, name)


def _full_name(name: str) -> str:
    return f"torch._library.autograd.GeneratedBackwardFor_torchvision_{name}_default"


RULES: Mapping[str, Rule] = {
    **{_full_name(name): _by_call(name, arguments) for name, arguments in _CALLS.items()},
    _full_name("roi_pool"): Rule(_jvp_of_largest, linear_vjp_tangent, LINEAR, owns_output=True),
}
"""By module and class of the Python function."""
