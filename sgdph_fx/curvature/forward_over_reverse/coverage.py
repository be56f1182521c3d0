"""Which operations of a loss have a rule of their own, which fall back to torch, and where the sweep gives up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sgdph_fx.curvature.autograd_graph import producers_first
from sgdph_fx.curvature.forward_over_reverse.fallback import FALLBACK, require_known_kind
from sgdph_fx.curvature.forward_over_reverse.forward import forward_sweep
from sgdph_fx.curvature.forward_over_reverse.path import path
from sgdph_fx.curvature.forward_over_reverse.registry import rule_of
from sgdph_fx.curvature.forward_over_reverse.rule import GiveUp
from sgdph_fx.errors import NoCurvatureError

__all__ = ["Coverage", "coverage"]


@dataclass(frozen=True, slots=True)
class Coverage:
    """The operations that a loss is made by, as autograd names them, with how often each occurs.

    Args:
        own_rule: Those with a rule of their own.
        fallbacks: Those that torch's double backward differentiates, each by itself: right, and slower.
        unknown: Those at which the sweep gives up, so that torch's double backward takes the whole product.
        gives_up: Why the sweep gives up for the parameter that you asked for; None if it does not, or if you asked for
            none.
        refused: Why there is no product at all; None if there is one.
    """

    own_rule: Mapping[str, int]
    fallbacks: Mapping[str, int]
    unknown: Mapping[str, int]
    gives_up: str | None = None
    refused: str | None = None


def coverage(loss: Tensor, parameter: Tensor | None = None) -> Coverage:
    """Say how a Hessian-vector product of ``loss`` would be taken; no gradient is written.

    Args:
        loss: One number with its graph, of any dtype and device.
        parameter: Count only what lies between this leaf and the loss, which is all that its product passes. The
            forward half of a product is tried.

    Example:
        >>> p = torch.ones(3, requires_grad=True)
        >>> coverage((p.exp() * torch.hypot(p, p)).sum(), p).fallbacks
        {'HypotBackward0': 1}
    """
    counts: dict[str, Counter[str]] = {"own": Counter(), "fallback": Counter(), "unknown": Counter()}
    order = producers_first(loss)
    for node in order if parameter is None else path(order, parameter):
        name = type(node).__name__
        if name == "AccumulateGrad":
            continue
        kind = "own"
        if rule_of(node) is FALLBACK:
            try:
                require_known_kind(node)
                kind = "fallback"
            except GiveUp:
                kind = "unknown"
        counts[kind][name] += 1
    gives_up = refused = None
    if parameter is not None:
        try:
            forward_sweep(loss, parameter, torch.ones_like(parameter, requires_grad=False))
        except GiveUp as reason:
            gives_up = str(reason)
        except NoCurvatureError as error:
            refused = str(error)
    own, fallback, unknown = (dict(counter) for counter in counts.values())
    return Coverage(own, fallback, unknown, gives_up, refused)
