"""Losses, sums, norms of vectors, and other reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.products import Operation

__all__ = ["LOSSES", "REDUCTIONS"]

IMAGE = (2, 4, 5, 6)
WEIGHT = torch.linspace(0.5, 1.5, 4).double()
WEIGHTS = {"weight": WEIGHT, "pos_weight": WEIGHT * 2}
SHORT = [(3, 4), (3, 4)]


def _entropy(x: Tensor) -> Tensor:
    return F.cross_entropy(x, torch.tensor([1, 0, 3]), weight=torch.tensor([1.0, 2.0, 0.5, 1.0]).to(x.dtype))


def _smooth_entropy(x: Tensor) -> Tensor:
    return F.cross_entropy(x, torch.tensor([1, -100, 3]), label_smoothing=0.2)


def _weighted(x: Tensor) -> Tensor:
    return F.binary_cross_entropy(x, PARTS.to(x.dtype), weight=WEIGHT.to(x.dtype), reduction="sum")


def _pixel_entropy(x: Tensor) -> Tensor:
    return F.cross_entropy(x, torch.arange(60).view(2, 5, 6) % 4)


def _of_probabilities(loss: Callable[..., Tensor], **how: Any) -> Callable[..., Tensor]:
    return lambda x, t: loss(torch.sigmoid(x / 4), torch.sigmoid(t), **how)


def _reduced(name: str, loss: Callable[..., Tensor], **how: Any) -> dict[str, Operation]:
    """A loss of two tensors, reduced in each way."""

    def reduced(reduction: str) -> Callable[..., Tensor]:
        return lambda x, t: loss(x, t, reduction=reduction, **how)

    return {f"{name}, {each}": (reduced(each), SHORT) for each in ("none", "mean", "sum")}


def _given_targets(
    name: str, loss: Callable[..., Tensor], targets: Tensor, **how: Any
) -> dict[str, Operation]:
    """A loss of one tensor and of targets without gradient, reduced in each way."""

    def reduced(reduction: str) -> Callable[..., Tensor]:
        return lambda x: loss(x, targets, reduction=reduction, **how)

    return {f"{name}, {each}": (reduced(each), [(3, 4)]) for each in ("none", "mean", "sum")}


PARTS = torch.linspace(0, 1, 12).double().view(3, 4)
SIGNS = torch.tensor([1.0, -1.0, -1.0, 1.0]).double().expand(3, 4)
LOSSES: dict[str, Operation] = {
    "cross entropy": (_entropy, [(3, 4)]),
    "smoothed cross entropy": (_smooth_entropy, [(3, 4)]),
    "cross entropy of pixels": (_pixel_entropy, [IMAGE]),
    "cross entropy of probabilities": (lambda x: F.cross_entropy(x, PARTS), [(3, 4)]),
    **_reduced("squared error", F.mse_loss),
    **_reduced("absolute error", F.l1_loss),
    **_reduced("smooth absolute error", F.smooth_l1_loss, beta=2.0),
    **_reduced("smooth absolute error without smoothing", F.smooth_l1_loss, beta=0.0),
    **_reduced("Huber", F.huber_loss, delta=2.0),
    **_given_targets("cross entropy of logits", F.binary_cross_entropy_with_logits, PARTS),
    **_given_targets(
        "weighted cross entropy of logits", F.binary_cross_entropy_with_logits, PARTS, **WEIGHTS
    ),
    **_given_targets("soft margin", F.soft_margin_loss, SIGNS),
    **_given_targets("hinge", F.hinge_embedding_loss, SIGNS),
    **_given_targets("Poisson", F.poisson_nll_loss, PARTS),
    **_given_targets("several soft margins", F.multilabel_soft_margin_loss, PARTS.round()),
    "binary cross entropy": (_of_probabilities(F.binary_cross_entropy), SHORT),
    "binary cross entropy, weighted": (
        lambda x: _weighted(torch.sigmoid(x / 4)), [(3, 4)]
    ),
    "cross entropy of logits and of what should be": (
        lambda x, t: F.binary_cross_entropy_with_logits(x, torch.sigmoid(t)), SHORT
    ),
    "KL divergence": (lambda x: F.kl_div(x.log_softmax(1), PARTS, reduction="batchmean"), [(3, 4)]),
    "KL divergence of logarithms": (
        lambda x, t: F.kl_div(x.log_softmax(1), t.log_softmax(1), reduction="sum", log_target=True), SHORT
    ),
    "Gaussian": (lambda x, t: F.gaussian_nll_loss(x, torch.ones_like(x), t * t + 1), SHORT),
    "cosine": (lambda x, t: F.cosine_embedding_loss(x, t, torch.tensor([1, -1, 1]), 0.1), SHORT),
    "triplet": (F.triplet_margin_loss, [(3, 4)] * 3),
    "margin ranking": (lambda x, t: F.margin_ranking_loss(x, t, SIGNS, 0.3), SHORT),
}  # fmt: skip
REDUCTIONS: dict[str, Operation] = {
    "sums and means": (lambda x: x.sum() + x.mean() + x.sum(-1).mean((0, 2), keepdim=True), [IMAGE]),
    "sum of a number": (lambda x: x.sum() + x.mean() + x.sum(0), [()]),
    "sums over no dimension": (lambda x: x.sum(()) * x.mean(()), [(3, 4)]),
    "sum of nothing": (lambda x: x.sum() + x.sum(0).sum(), [(0, 3)]),
    "trace, diagonal": (lambda x: x.trace() * x.diagonal() + x.diag(1).sum(), [(3, 4)]),
    "running sum": (lambda x: x.cumsum(1) * x.cumsum(-1), [IMAGE]),
    "sum without nan": (lambda x: x.nansum(1), [IMAGE]),
    "softmax": (lambda x: torch.softmax(x, -1), [IMAGE]),
    "softmax of a number": (lambda x: torch.softmax(x, 0) * x, [()]),
    "safe softmax": (lambda x: torch.ops.aten._safe_softmax(x, 1), [IMAGE]),
    "softmin": (lambda x: F.softmin(x, 1), [IMAGE]),
    "log softmax": (lambda x: torch.log_softmax(x, 1), [IMAGE]),
    "log of a sum of exponentials": (lambda x: torch.logsumexp(x, (0, -1)), [IMAGE]),
    "the same, dimensions kept": (lambda x: torch.logsumexp(x, 1, keepdim=True), [IMAGE]),
    "log of a running sum of exponentials": (lambda x: torch.logcumsumexp(x, 1), [IMAGE]),
    "the same, far out": (lambda x: torch.logcumsumexp(x * 9 - 200, -1), [IMAGE]),
    "variance": (lambda x: x.var() + x.var(1) .sum() + x.var((0, 2), correction=0), [IMAGE]),
    "variance, dimensions kept": (lambda x: x.var((1, -1), keepdim=True), [IMAGE]),
    "variance and mean": (lambda x: torch.add(*torch.var_mean(x, (0, 2))), [IMAGE]),
    "mean beside the variance": (lambda x: torch.var_mean(x, 1)[1], [IMAGE]),
    "deviation": (lambda x: x.std() + x.std(-1), [IMAGE]),
    "deviation, dimensions kept": (lambda x: x.std((0, 1), keepdim=True, correction=2), [IMAGE]),
    "deviation and mean": (lambda x: torch.mul(*torch.std_mean(x, 1)), [IMAGE]),
    "norms": (lambda x: x.norm() + torch.linalg.vector_norm(x, dim=(0, 2)), [IMAGE]),
    "norms, dimensions kept": (lambda x: x / torch.linalg.vector_norm(x, dim=1, keepdim=True), [IMAGE]),
    "norms read by others": (lambda x: x.norm(dim=1).relu().mul(3).exp().log(), [IMAGE]),
    "norms of other orders": (
        lambda x: sum(torch.linalg.vector_norm(x, o, 1) for o in (1, torch.inf, -torch.inf, 0, 3)), [IMAGE]
    ),
    "distance of pairs": (lambda a, b: F.pairwise_distance(a, b), SHORT),
    "cosine similarity": (lambda a, b: F.cosine_similarity(a, b, dim=1), SHORT),
    "standardized weight": (
        lambda w: (w - w.mean((1, 2), keepdim=True)) * torch.rsqrt(w.var((1, 2), keepdim=True) + 1e-5), [(4, 3, 5)]
    ),
}  # fmt: skip
