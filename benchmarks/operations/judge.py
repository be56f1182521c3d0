"""One position → right, refused, wrong, or crashed, by an oracle that is not the sweep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.operations.positions import LENGTH, Position
from sgdph_fx.curvature.forward_over_reverse import backward_with_product
from sgdph_fx.errors import NoCurvatureError

__all__ = ["Outcome", "judge"]

STEP = 1e-5
TOLERANCE = {"double backward": 1e-7, "finite differences": 1e-3}


@dataclass(frozen=True)
class Outcome:
    """What came out.

    Args:
        verdict: ``right``, ``refused`` (by name, before any gradient), ``wrong``, ``crashed``, ``untold`` where neither
            oracle gives a finite number, or ``constant`` where nothing depends on p.
        oracle: What was compared with.
        way: ``sweep``, or why it gave up.
        detail: The error, or how far it is off.
    """

    verdict: str
    oracle: str = ""
    way: str = "sweep"
    detail: str = ""


def judge(position: Position) -> Outcome:
    """Take the product at p = 0 along a fixed direction, and compare it."""
    v = torch.linspace(-1, 1.2, LENGTH, dtype=torch.float64)
    try:
        if not position.loss(torch.zeros(LENGTH, dtype=torch.float64, requires_grad=True)).requires_grad:
            return Outcome("constant")
    except Exception as error:
        return Outcome("untold", detail=f"torch cannot make this loss: {str(error)[:200]}")
    p = torch.zeros(LENGTH, dtype=torch.float64, requires_grad=True)
    why: list[str] = []
    try:
        found = backward_with_product(position.loss(p), p, v, on_give_up=why.append)
    except NoCurvatureError as error:
        return Outcome("wrong" if p.grad is not None else "refused", "", _way(why), str(error)[:300])
    except Exception as error:
        if _torch_fails_too(position.loss):
            return Outcome("untold", detail=f"torch's own backward fails: {str(error)[:200]}")
        return Outcome("crashed", "", _way(why), f"{type(error).__name__}: {str(error)[:300]}")
    gradient, expected, oracle = _expected(position.loss, v)
    way = _way(why)
    found = torch.zeros_like(expected) if found is None else found
    if p.grad is not None and gradient is not None and not torch.equal(p.grad, gradient):
        apart = (p.grad - gradient).nan_to_num().norm() / (gradient.nan_to_num().norm() + 1e-30)
        if apart > 1e-12 or not torch.equal(p.grad.isnan(), gradient.isnan()):
            return Outcome("wrong", "loss.backward()", way, f"the gradient is off by {float(apart):.1e}")
    if not expected.isfinite().all():
        return Outcome("untold", oracle, way)
    off = float((found - expected).norm() / (expected.norm() + 1e-6))
    if off <= TOLERANCE[oracle]:
        if oracle == "double backward" and (apart := _contradiction(position, v, expected)):
            return Outcome(
                "wrong", "finite differences", way, f"so is torch's double backward: off by {apart:.1e}"
            )
        return Outcome("right", oracle, way)
    if oracle == "double backward" and _as_near(position.loss, v, found, expected):
        return Outcome("right", "both, of a problem too ill-conditioned to tell", way)
    return Outcome("wrong", oracle, way, f"off by {off:.1e}")


def _way(why: list[str]) -> str:
    return why[0] if why else "sweep"


def _as_near(loss: Callable[[Tensor], Tensor], v: Tensor, found: Tensor, torchs: Tensor) -> bool:
    """Whether both lie equally near what finite differences give, as far as these can tell."""
    first, second = (_differences(loss, v, step) for step in (10 * STEP, STEP))
    spread = (first - second).norm()
    return bool((found - first).norm() <= 3 * (torchs - first).norm() + 2 * spread)


def _contradiction(position: Position, v: Tensor, column: Tensor) -> float:
    """How far finite differences are from torch's double backward, if that is more than they can be wrong by; else 0.

    They tell nothing where the operation rounds, where the loss bends at 0, and where torch's gradient is no slope of
    the loss to begin with.
    """
    try:
        coarse, fine = _differences(position.loss, v, 10 * STEP), _differences(position.loss, v, STEP)
        if position.rounds or not _is_smooth(position.loss, v):
            return 0.0
    except Exception:  # the loss is not defined beside 0
        return 0.0
    spread, off = (coarse - fine).norm(), (column - fine).norm()
    told = off > 1e-4 * (fine.norm() + 1e-3) + 20 * spread
    return float(off / (fine.norm() + 1e-6)) if told else 0.0


def _is_smooth(loss: Callable[[Tensor], Tensor], v: Tensor) -> bool:
    """Whether the gradient at 0 is the loss's slope along v, on either side."""
    zero = torch.zeros(LENGTH, dtype=torch.float64)
    values = [loss(side * STEP * v).detach() for side in (-1, 0, 1)]
    slope = _gradient(loss, zero) @ v
    slopes = torch.stack([values[1] - values[0], values[2] - values[1]]) / STEP
    return bool(((slopes - slope).abs() <= 1e-3 * (slope.abs() + 1)).all())


def _torch_fails_too(loss: Callable[[Tensor], Tensor]) -> bool:
    try:
        _gradient(loss, torch.zeros(LENGTH, dtype=torch.float64))
    except Exception:
        return True
    return False


def _gradient(loss: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    p = at.clone().requires_grad_()
    value = loss(p)
    if value.requires_grad:
        value.backward()  # type: ignore[no-untyped-call]
    return torch.zeros_like(p) if p.grad is None else p.grad


def _expected(loss: Callable[[Tensor], Tensor], v: Tensor) -> tuple[Tensor | None, Tensor, str]:
    """∂L/∂p by ``backward``, and Hv by torch's double backward; by finite differences where torch has none."""
    zero = torch.zeros(LENGTH, dtype=torch.float64)
    gradient = _gradient(loss, zero)
    p = zero.clone().requires_grad_()
    try:
        value = loss(p)
        (g,) = torch.autograd.grad(value, p, create_graph=True, allow_unused=True)
        if g is None or not g.requires_grad:
            raise RuntimeError("no graph")
        (column,) = torch.autograd.grad(g, p, v, allow_unused=True)
        if column is not None:
            return gradient, column, "double backward"
    except Exception:
        pass
    return gradient, _differences(loss, v, STEP), "finite differences"


def _differences(loss: Callable[[Tensor], Tensor], v: Tensor, step: float) -> Tensor:
    ahead, behind = _gradient(loss, step * v), _gradient(loss, -step * v)
    return (ahead - behind) / (2 * step)
