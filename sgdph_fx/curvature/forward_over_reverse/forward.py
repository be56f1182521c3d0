"""The forward sweep: tangents from the due parameter to the loss, or a reason to give up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.autograd_graph import Edge, Order, producers_first
from sgdph_fx.curvature.custom_functions import CHECKPOINT, full_name, kind_name
from sgdph_fx.curvature.forward_over_reverse.arithmetic_alone import arithmetic_alone
from sgdph_fx.curvature.forward_over_reverse.buffer_reuse import owned_results
from sgdph_fx.curvature.forward_over_reverse.fallback import FALLBACK, require_known_kind
from sgdph_fx.curvature.forward_over_reverse.path import path, source
from sgdph_fx.curvature.forward_over_reverse.registry import rule_of
from sgdph_fx.curvature.forward_over_reverse.rule import ForwardNode, GiveUp, Tensors
from sgdph_fx.curvature.saved_values import is_packed, require_dense, saved_as_it_is
from sgdph_fx.curvature.selective import refuse_selective_checkpoints
from sgdph_fx.errors import NoCurvatureError, first_line

__all__ = ["forward_sweep"]

# What torch raises where it is given something that it does not take.
_TORCHS_OWN = (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError, AssertionError)


def forward_sweep(
    loss: Tensor,
    parameter: Tensor,
    v: Tensor,
    order: Order | None = None,
    others: Sequence[Tensor] = (),
) -> dict[Node, ForwardNode]:
    """Push the tangent v of ``parameter`` forward to ``loss``.

    Args:
        loss: One number with its graph; nothing is written into it.
        parameter: A leaf.
        v: Of its shape, dtype and device.
        order: What :func:`producers_first` finds of the loss, where the caller has it already.
        others: More leaves, which have tangents of zero: the product is read by them as well.

    Returns:
        The operations on the way, in the order of the forward pass, each with what its backward needs. Empty where the
        loss does not depend on the parameter.

    Raises:
        GiveUp: naming the operation, where a rule does not understand it.
        NoCurvatureError: where an operation is known to have no second derivative.
    """
    order = producers_first(loss) if order is None else order
    nodes = path(order, parameter, *others)
    _require_plain(loss, v)
    packed = {node for node in nodes if is_packed(node)}
    refuse_selective_checkpoints(packed)
    _require_open(order, nodes, packed)
    with arithmetic_alone(v.device.type):
        zeros = {source(other): torch.zeros_like(other, requires_grad=False) for other in others}
        return _Sweep(nodes, order).run({source(parameter): v, **zeros})


def _require_plain(*tensors: Tensor) -> None:
    for t in tensors:
        if torch._C._functorch.is_functorch_wrapped_tensor(t):
            raise GiveUp("the loss is computed inside a function transform of torch.func")
        if t.layout is not torch.strided or t.is_complex():
            raise GiveUp(f"tangents of layout {t.layout} and dtype {t.dtype} have no rules")


def _require_open(order: Iterable[Node], nodes: Iterable[Node], packed: set[Node]) -> None:
    """Refuse graphs that hide operations: those computed again or fetched at each reading."""
    if any(kind_name(kind) == CHECKPOINT for kind in {type(node) for node in order}):
        raise GiveUp("a reentrant checkpoint hides the operations inside it")
    for node in nodes:
        try:
            if node not in packed:
                require_dense(node)
                continue
            as_it_is = saved_as_it_is(node)
        except _TORCHS_OWN as error:
            raise _given_up(node, error) from error
        if not as_it_is:
            raise GiveUp(f"{type(node).__name__}: what it saved is checkpointed or offloaded")


def _given_up(node: Node, error: BaseException) -> BaseException:
    """The error as a reason to give up, unless it is one of those that end everything."""
    if isinstance(error, NoCurvatureError | torch.OutOfMemoryError):
        return error
    return GiveUp(f"{full_name(node) or type(node).__name__}: {first_line(error)}")


class _Sweep:
    """The tangents on their way forward, and which of them may be overwritten."""

    def __init__(self, nodes: Mapping[Node, tuple[bool, ...]], order: Order) -> None:
        self._nodes, self._edges = nodes, order
        self._tangents: dict[Edge, Tensor] = {}
        self._writable: set[Edge] = set()
        self._unknown: set[Edge] = set()
        self._waiting: dict[Edge, int] = {}
        for node in nodes:
            for edge in order[node]:
                self._waiting[edge] = self._waiting.get(edge, 0) + 1

    def run(self, starts: Mapping[Edge, Tensor]) -> dict[Node, ForwardNode]:
        """Visit every operation, producers first."""
        self._tangents.update(starts)
        return {node: self._visit(node, active) for node, active in self._nodes.items()}

    def _visit(self, node: Node, active: tuple[bool, ...]) -> ForwardNode:
        edges = self._edges[node]
        if self._unknown:
            self._refuse_unknown(edges)
        try:
            rule = rule_of(node)
            if rule is FALLBACK:
                require_known_kind(node)
            fwd = ForwardNode(
                node,
                rule,
                active,
                [self._tangents.get(edge) for edge in edges],
                [edge in self._writable for edge in edges],
            )
            self._keep(fwd, _conforming(node, rule.jvp(fwd)))
        except (*_TORCHS_OWN, GiveUp) as error:
            raise _given_up(node, error) from error
        if sum(active) < rule.linearity:
            fwd.tangents = [None] * len(edges)
        self._forget(edges)
        return fwd

    def _refuse_unknown(self, edges: tuple[Edge, ...]) -> None:
        for node, number in edges:
            if (node, number) in self._unknown:
                raise GiveUp(
                    f"{type(node).__name__}: no tangent is known of its output {number}, which is used"
                )

    def _keep(self, fwd: ForwardNode, made: Tensors) -> None:
        node = fwd.node
        self._unknown.update((node, number) for number in range(len(made), len(node._input_metadata)))
        owned = owned_results(fwd.rule, made, fwd.tangents, fwd.writable)
        for number, (tangent, is_own) in enumerate(zip(made, owned, strict=True)):
            if tangent is not None:
                self._tangents[node, number] = tangent
            if is_own and self._waiting.get((node, number)) == 1:
                self._writable.add((node, number))

    def _forget(self, edges: tuple[Edge, ...]) -> None:
        for edge in edges:
            self._waiting[edge] -= 1
            if self._waiting[edge] == 0:
                self._tangents.pop(edge, None)


def _conforming(node: Node, tangents: Tensors) -> Tensors:
    """Shape ẏ as the outputs are: operations that broadcast leave it to be spread, or to be of another dtype."""
    made = zip(tangents, node._input_metadata, strict=False)
    return [t if t is None else _spread(t, declared) for t, declared in made]


def _spread(t: Tensor, declared: Any) -> Tensor:
    shape, dtype = tuple(declared.shape), declared.dtype
    if t.shape != shape:
        t = t.expand(shape)
    return t if t.dtype is dtype else t.to(dtype)
