"""The backward half: the tangents of gradients, pulled back beside a running backward pass."""

from __future__ import annotations

import math
import threading
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.autograd_graph import Edge
from sgdph_fx.curvature.forward_over_reverse.arithmetic_alone import arithmetic_alone
from sgdph_fx.curvature.forward_over_reverse.buffer_reuse import owned_results
from sgdph_fx.curvature.forward_over_reverse.rule import BackwardNode, ForwardNode, Tensors, as_gradient

__all__ = ["BackwardHooks"]


class _Pass:
    """The backward pass that is watched, in which each device has a thread of its own, the CPU too.

    Attributes:
        one_at_a_time: Held while a rule works, and tangents change.
    """

    def __init__(self) -> None:
        self.one_at_a_time = threading.RLock()
        self._task: int | None = None

    def is_outermost(self) -> bool:
        """Whether this thread works for it: a rule may run autograd, over operations that it has yet to reach."""
        task: int = torch._C._current_graph_task_id()
        if self._task is None:
            self._task = task
        return task == self._task


class BackwardHooks:
    """Hooks on the operations of a forward sweep, for one backward pass inside ``with``.

    Args:
        forward_nodes: What the forward sweep left. Each is taken out of it, and its tangents freed, once it has served.
        beside: The hooks of another sweep on the same backward pass, if there are any.
    """

    def __init__(self, forward_nodes: dict[Node, ForwardNode], beside: BackwardHooks | None = None) -> None:
        self._tangents: dict[Edge, Tensor] = {}
        self._writable: set[Edge] = set()
        self._forward_nodes = forward_nodes
        self._pass: _Pass = _Pass() if beside is None else beside._pass
        self._failed: str | None = None

    def __enter__(self) -> BackwardHooks:
        self._handles = [node.register_hook(self._hook(node)) for node in self._forward_nodes]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._forward_nodes.clear()

    def column(self, start: Edge, like: Tensor) -> Tensor:
        """Hv of the parameter whose gradient arrives at ``start``; NaN, with a warning, where a rule failed.

        The forward sweep has tried whatever can fail. Should a rule fail here all the same, the gradients are already
        right and the graph is used up: a product that is not finite is left out by the optimizer, and counted.
        """
        if self._failed is not None:
            warnings.warn(
                f"This Hessian-vector product is lost: {self._failed}. The gradients are right. Please report it.",
                RuntimeWarning,
                stacklevel=2,
            )
            return torch.full_like(like, math.nan, requires_grad=False)
        found = self._tangents.get(start)
        return torch.zeros_like(like, requires_grad=False) if found is None else found

    def _hook(self, node: Node) -> Any:
        return lambda by_inputs, g: self._after_node(node, by_inputs, g)

    def _after_node(self, node: Node, by_inputs: Tensors, g: Tensors) -> None:
        if not self._pass.is_outermost():
            return
        with self._pass.one_at_a_time:
            if self._failed is None:
                self._take_turn(node, by_inputs, g)

    def _take_turn(self, node: Node, by_inputs: Tensors, g: Tensors) -> None:
        fwd = self._forward_nodes.pop(node, None)
        if fwd is None:
            return
        edges = [(node, number) for number in range(len(g))]
        dg = [self._tangents.pop(edge, None) for edge in edges]
        if fwd.rule.linearity > sum(fwd.active) and all(t is None for t in dg):
            return
        bwd = BackwardNode(fwd, g, dg, [edge in self._writable for edge in edges], by_inputs)
        try:
            with arithmetic_alone(_device_type(g)):
                self._pull(bwd)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            self._failed = f"the rule for {type(node).__name__} failed ({type(error).__name__}: {error})"

    def _pull(self, bwd: BackwardNode) -> None:
        if self._add_to_the_whole(bwd):
            return
        found = bwd.fwd.rule.vjp_tangent(bwd)
        asked = [t if active else None for t, active in zip(found, bwd.active, strict=False)]
        own = owned_results(bwd.fwd.rule, asked, bwd.dg, bwd.writable)
        for edge, tangent, is_own in zip(bwd.node.next_functions, asked, own, strict=False):
            self._add(edge, tangent, is_own)

    def _add_to_the_whole(self, bwd: BackwardNode) -> bool:
        """Add ġ of a part to what the whole has received: that spares a whole of zeros, and its sum.

        Returns:
            Whether it was added; if not, nothing has been done.
        """
        part, whole, dg = bwd.fwd.rule.part, bwd.node.next_functions[0], bwd.dg[0]
        held = self._tangents.get(whole) if whole in self._writable else None
        if part is None or held is None or dg is None or held.dtype is not dg.dtype:
            return False
        part(bwd.node, held).add_(dg)
        return True

    def _add(self, edge: Edge, tangent: Tensor | None, is_own: bool) -> None:
        if edge[0] is None or tangent is None:
            return
        tangent = as_gradient(edge, tangent)
        held = self._tangents.get(edge)
        if held is None:
            self._tangents[edge] = tangent
        elif edge in self._writable:
            held.add_(tangent)
        else:
            self._tangents[edge] = tangent.add_(held) if is_own else held + tangent
        if is_own or held is not None:
            self._writable.add(edge)


def _device_type(tensors: Tensors) -> str:
    for t in tensors:
        if t is not None:
            return t.device.type
    return "cpu"
