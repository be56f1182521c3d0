r"""The diagonal of the Gauss-Newton matrix, and what couples two parameters, by one more backward pass.

Let z be what the last convex function of the loss reads (the logits of a cross-entropy, say), J = ∂z/∂p, and A the
Hessian of the loss by z. The Gauss-Newton matrix :math:`J^\top A J` drops the second derivative of the network itself,
so it is never negative. For cross-entropy it is the Fisher matrix (Martens, "New insights and perspectives on the
natural gradient method", 2020, section 8).

With a root :math:`A = B B^\top` and random signs s, the vector :math:`w = J^\top B s` has the matrix as the mean of its
products, and so the diagonal as the mean of its squares:

.. math:: J^\top A J = \mathbb{E}_s \bigl[ w w^\top \bigr] .

One draw takes one backward pass from z, which computes no gradient of a weight that you did not ask for. Hooks on its
way run once more. Unit vectors in place of s give the entries themselves, as the sum of these products: one pass for
each number of z.

Two parameters of one shape have parts u and v of w. The 2×2 matrices [[u², uv], [uv, v²]], number by number, are never
negative, and neither are their means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from sgdph_fx.curvature.autograd_graph import leaves, nodes, passing_nothing_on, producers_first
from sgdph_fx.curvature.convex_ends import ConvexEnd, convex_ends
from sgdph_fx.curvature.custom_functions import leaves_grads_alone
from sgdph_fx.curvature.data_parallel import extra_pass, sinks
from sgdph_fx.curvature.forward_over_reverse.path import path
from sgdph_fx.curvature.hvp import MISUSED
from sgdph_fx.curvature.random_signs import random_signs
from sgdph_fx.curvature.reentrant import reentrant_checkpoints
from sgdph_fx.curvature.saved_values import is_packed
from sgdph_fx.curvature.selective import refuse_selective_checkpoints
from sgdph_fx.errors import NoCurvatureError, first_line

__all__ = ["gauss_newton_diagonal", "gauss_newton_entries"]


def gauss_newton_diagonal(
    loss: Tensor, params: Sequence[Tensor], key: Tensor | None, *, draws: int = 1
) -> list[Tensor | None]:
    """Find the diagonal of the Gauss-Newton matrix: an estimate without bias, or the diagonal itself; never negative.

    Args:
        loss: One number with its graph, which is kept. It must be linear in known convex functions of the network's
            outputs: log-softmax (and so cross-entropy, also with soft targets, class weights or label smoothing),
            logsumexp, exp (and so a Poisson loss), squares and MSE, Huber and smooth L1 losses, binary cross-entropy of
            logits or probabilities, soft margin, softplus and log-sigmoid, or a sum of several of these. It may use the
            outputs linearly as well. A part that enters with a negative weight counts as zero.
        params: The leaves to take it for, of any shapes, dtypes and devices.
        key: Decides the signs: :func:`sgdph_fx.curvature.sign_key`. None for the diagonal itself, by one backward pass
            for each number that the convex functions read.
        draws: How many draws to average. The relative standard deviation of one draw is at most about √2, and falls
            with the square root of the number of draws.

    Returns:
        For each parameter a tensor of its shape, dtype and device, without graph; zeros where the loss is linear in
        it, None where the loss does not depend on it.

    Raises:
        NoCurvatureError: if the loss is not of this form; the message names the operation. Or if its graph cannot be
            run backward twice. No ``.grad`` has been written.

    Example:
        Of the loss (2 p)² / 2 the Gauss-Newton matrix is the Hessian, 4:

        >>> from sgdph_fx.curvature import sign_key
        >>> p = torch.tensor([3.0], requires_grad=True)
        >>> gauss_newton_diagonal((2 * p).pow(2).sum() / 2, [p], sign_key(seed=0, step=1))
        [tensor([4.])]
    """
    return gauss_newton_entries(loss, params, (), key, draws=draws)[0]


def gauss_newton_entries(
    loss: Tensor,
    params: Sequence[Tensor],
    pairs: Sequence[tuple[int, int]],
    key: Tensor | None,
    *,
    draws: int = 1,
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """Find the diagonal, and the entries that couple pairs of parameters number by number.

    Args:
        loss: As in :func:`gauss_newton_diagonal`.
        params: The leaves.
        pairs: Places in ``params`` of two leaves of one shape, dtype and device.
        key: As in :func:`gauss_newton_diagonal`.
        draws: As in :func:`gauss_newton_diagonal`.

    Returns:
        What :func:`gauss_newton_diagonal` returns; and for each pair a tensor of the shape of either, None where the
        loss does not depend on both.

    Raises:
        NoCurvatureError: as :func:`gauss_newton_diagonal`.

    Example:
        Of the loss (p + 2 q)² / 2 the matrix is [[1, 2], [2, 4]]:

        >>> from sgdph_fx.curvature import sign_key
        >>> p, q = (torch.tensor([x], requires_grad=True) for x in (3.0, 5.0))
        >>> gauss_newton_entries((p + 2 * q).pow(2).sum() / 2, [p, q], [(0, 1)], sign_key(seed=0, step=1))
        ([tensor([1.]), tensor([4.])], [tensor([2.])])
    """
    _refuse_reentrant_checkpoints(loss)
    used = {id(leaf) for leaf in leaves(loss)}
    found = [torch.zeros_like(p, requires_grad=False) if id(p) in used else None for p in params]
    couplings = [_zero(found[i], found[j]) for i, j in pairs]
    among, ends = list(nodes(loss)), list(convex_ends(loss))
    if not ends:
        return found, couplings
    inputs = [end.inputs[0][0] for end in ends]
    refuse_selective_checkpoints(_packed_above(loss, among, params))
    with _second_pass_explained(), extra_pass(sinks(among)), leaves_grads_alone([*leaves(loss)], among):
        outer = _weights(loss, ends)
        for vectors, weight in _unit_vectors(inputs) if key is None else _draws(inputs, key, draws):
            along = [end.root(end.node, g, s) for end, g, s in zip(ends, outer, vectors, strict=True)]
            pulled = _pulled_back(ends, along, params)
            _add_products(found, [(one, one) for one in pulled], weight)
            _add_products(couplings, [(pulled[i], pulled[j]) for i, j in pairs], weight)
    return found, couplings


def _weights(loss: Tensor, ends: Sequence[ConvexEnd]) -> tuple[Tensor, ...]:
    """Compute how much of each convex function the loss holds, apart from what others read of it.

    One may lie below another, as log-softmax below the square of its result. What comes through the other belongs to
    J there, so nothing passes on from any of them.
    """
    with passing_nothing_on(end.node for end in ends):
        return torch.autograd.grad(loss, [end.output for end in ends], retain_graph=True)


def _zero(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return None if first is None or second is None else torch.zeros_like(first)


def _add_products(
    totals: Sequence[Tensor | None], factors: Iterable[tuple[Tensor | None, Tensor | None]], weight: float
) -> None:
    for total, (u, v) in zip(totals, factors, strict=True):
        if total is not None and u is not None and v is not None:
            total.addcmul_(u, v, value=weight)


def _pulled_back(
    ends: Sequence[ConvexEnd], along: Sequence[Tensor], params: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Compute Jᵀ of vectors at what the functions read."""
    signed = [(edge, v * sign) for end, v in zip(ends, along, strict=True) for edge, sign in end.inputs]
    edges, vectors = [edge for edge, _ in signed], [v for _, v in signed]
    found: tuple[Tensor | None, ...] = torch.autograd.grad(
        edges, params, vectors, retain_graph=True, allow_unused=True
    )
    return found


Vectors: TypeAlias = "Iterator[tuple[list[Tensor], float]]"
"""Vectors s, one part for each convex function, and the weight of their square."""


def _draws(inputs: Sequence[GradientEdge], key: Tensor, draws: int) -> Vectors:
    start = 0
    for _ in range(draws):
        signs = []
        for edge in inputs:
            signs.append(_signs(edge, key, start))
            start += signs[-1].numel()
        yield signs, 1 / draws


def _unit_vectors(inputs: Sequence[GradientEdge]) -> Vectors:
    for number, edge in enumerate(inputs):
        for place in range(_empty(edge).numel()):
            vectors = [_empty(other).zero_() for other in inputs]
            vectors[number].view(-1)[place] = 1
            yield vectors, 1.0


def _signs(edge: GradientEdge, key: Tensor, start: int) -> Tensor:
    like = _empty(edge)
    signs = random_signs(key.to(like.device, non_blocking=True), start, like.numel(), like.dtype)
    return signs.view(like.shape)


def _empty(edge: GradientEdge) -> Tensor:
    """A tensor of the shape, dtype and device of what the function at the edge reads."""
    declared = edge.node._input_metadata[edge.output_nr]
    return torch.empty(tuple(declared.shape), dtype=declared.dtype, device=declared.device)


def _packed_above(loss: Tensor, among: Sequence[Node], params: Sequence[Tensor]) -> list[Node]:
    """The operations between the parameters and the loss that do not simply hold what they saved."""
    packed = [node for node in among if is_packed(node)]
    above = path(producers_first(loss), *params) if packed else {}
    return [node for node in packed if node in above]


def _refuse_reentrant_checkpoints(loss: Tensor) -> None:
    """Autograd would not find the parameters inside of one, and take the loss for independent of them."""
    if reentrant_checkpoints(loss):
        raise NoCurvatureError(
            "The Gauss-Newton matrix takes a second backward pass, and reentrant checkpoints allow only one that "
            "writes gradients. Call `torch.utils.checkpoint.checkpoint(..., use_reentrant=False)`, or use "
            'curvature="hessian".'
        )


@contextmanager
def _second_pass_explained() -> Iterator[None]:
    try:
        yield
    except (NoCurvatureError, torch.OutOfMemoryError):
        raise
    except RuntimeError as error:
        if any(mark in str(error) for mark in MISUSED):
            raise
        raise NoCurvatureError(
            "Torch cannot run the graph of this loss backward twice, as the Gauss-Newton matrix needs. It says: "
            f"{first_line(error)} Run the forward pass uncompiled where the matrix is due "
            "(`sgdph_fx.compile_between_refreshes` sees to it), or put the parameters below that operation into a "
            "group with order=1."
        ) from error
