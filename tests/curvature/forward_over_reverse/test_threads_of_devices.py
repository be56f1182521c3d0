"""Autograd runs the operations of each device by a thread of its own: rules may be asked for at the same time."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sgdph_fx.curvature.forward_over_reverse.backward_hooks import BackwardHooks
from sgdph_fx.curvature.forward_over_reverse.forward import forward_sweep
from sgdph_fx.curvature.forward_over_reverse.path import source


def test_operations_of_two_devices_that_end_together_are_both_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the loss Σ sin p + Σ cos p the Hessian is -sin p - cos p."""
    monkeypatch.setattr(torch._C, "_current_graph_task_id", lambda: 7)  # one backward pass, by two threads
    p = torch.linspace(-1, 1, 5, dtype=torch.float64, requires_grad=True)
    nodes: Any = forward_sweep(p.sin().sum() + p.cos().sum(), p, torch.ones_like(p))
    hooks, first, second = BackwardHooks(nodes), *(_node(nodes, name) for name in ("Sin", "Cos"))
    inside, rule = threading.Event(), nodes[first].rule

    def slowly(bwd: Any) -> Any:
        inside.set()
        other.join(0.5)  # long enough to be done, if nothing kept it waiting
        return rule.vjp_tangent(bwd)

    nodes[first].rule = replace(rule, vjp_tangent=slowly)
    ones: Tensor = torch.ones_like(p).detach()

    def after(node: Any) -> None:
        with torch.no_grad():
            hooks._after_node(node, [ones], [ones])

    def afterwards() -> None:
        inside.wait()
        after(second)

    other = threading.Thread(target=afterwards)
    other.start()
    after(first)
    other.join()
    torch.testing.assert_close(hooks.column(source(p), like=p), (-p.sin() - p.cos()).detach())


def _node(nodes: Any, name: str) -> Any:
    return next(node for node in nodes if type(node).__name__.startswith(name))
