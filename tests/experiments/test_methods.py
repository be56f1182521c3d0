"""The optimizers from other packages, each against its paper's algorithm written out in NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from experiments.training.methods import METHODS

Array = npt.NDArray[np.float64]

CURVATURE = np.array([[1.0, 4.0, 0.5], [2.0, 0.1, 3.0]])
START = np.array([[1.0, -1.0, 2.0], [0.3, -0.7, 0.2]])
LR, DECAY, STEPS = 0.05, 0.1, 12


class Bowl(nn.Module):
    """A loss with gradient h∘w + w³/3 and diagonal Hessian h + w², whatever the input."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(START))

    def forward(self, x: Tensor) -> Tensor:
        return (torch.tensor(CURVATURE) * self.weight**2 / 2 + self.weight**4 / 12).sum()


def _gradient(w: Array) -> Array:
    return CURVATURE * w + w**3 / 3


def _path(method: str, **options: object) -> Array:
    made = METHODS[method](Bowl(), torch.zeros(1), LR, DECAY, **options)
    for _ in range(STEPS):
        made.optimizer.zero_grad()
        made.backward(made.model(torch.zeros(1)))
        made.optimizer.step()
    return made.model.get_parameter("weight").detach().numpy()


def _adabelief() -> Array:
    """Algorithm 2 of Zhuang et al. 2020, arXiv:2010.07468, decay decoupled as its authors' code has it."""
    w, m, s = START, np.zeros_like(START), np.zeros_like(START)
    beta1, beta2, eps = 0.9, 0.999, 1e-8
    for t in range(1, STEPS + 1):
        g = _gradient(w)
        w = w * (1 - LR * DECAY)
        m = beta1 * m + (1 - beta1) * g
        s = beta2 * s + (1 - beta2) * (g - m) ** 2 + eps
        w = w - LR * (m / (1 - beta1**t)) / (np.sqrt(s / (1 - beta2**t)) + eps)
    return w


def _adahessian() -> Array:
    """Algorithm 1 of Yao et al. 2021, arXiv:2006.00719, of block size 1, decay decoupled as in its authors' code.

    z∘(Hz) reads a diagonal Hessian exactly, so chance plays no part.
    """
    w, m, v = START, np.zeros_like(START), np.zeros_like(START)
    beta1, beta2, eps = 0.9, 0.999, 1e-4
    for t in range(1, STEPS + 1):
        g, d = _gradient(w), CURVATURE + w**2
        w = w * (1 - LR * DECAY)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * d**2
        w = w - LR * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
    return w


def _apollo(sigma: float, lr: float, eps: float, init_lr: float, warmup: int) -> Array:
    """Algorithm 1 of Ma 2020, arXiv:2009.13586, decay in the gradient; α is called a here."""
    w, m, b, d = START, *(np.zeros_like(START) for _ in range(3))
    beta = 0.9
    for t in range(1, STEPS + 1):
        g = _gradient(w) + DECAY * w
        old = m
        m = (beta * (1 - beta ** (t - 1)) * m + (1 - beta) * g) / (1 - beta**t)
        a = (d @ (m - old).T).trace() + (d**2 * b).sum()
        b = b - a / (np.linalg.norm(d.ravel(), 4) + eps) ** 4 * d**2
        d = m / np.maximum(np.abs(b), sigma)
        w = w - (lr if t >= warmup else init_lr + (lr - init_lr) * t / warmup) * d
    return w


@pytest.mark.parametrize(("method", "expected"), [("adabelief", _adabelief), ("adahessian", _adahessian)])
def test_updates_are_the_papers(method: str, expected: Callable[[], Array]) -> None:
    assert _path(method) == pytest.approx(expected(), rel=1e-9)


@pytest.mark.parametrize("warmup", [1, 5])
def test_apollo_is_its_papers_with_a_bound_of_one_hundredth(warmup: int) -> None:
    expected = _apollo(sigma=0.01, lr=LR, eps=0.01, init_lr=LR / 100, warmup=warmup)
    assert _path("apollo", warmup_steps=warmup) == pytest.approx(expected, rel=1e-7)


def test_apollo_takes_the_same_steps_with_bound_and_rate_1_and_with_one_hundredth() -> None:
    # SGD-PH's paper gives the learning rate of the first form; the package has the second.
    first = _apollo(sigma=1, lr=1, eps=1e-4, init_lr=0.01, warmup=5)
    second = _apollo(sigma=0.01, lr=0.01, eps=1e-2, init_lr=1e-4, warmup=5)
    assert first == pytest.approx(second, rel=1e-9)


def test_adahessian_averages_over_each_kernel() -> None:
    """On a convolution whose loss is Σ cᵢ wᵢ² / 2: the kernels' mean of |c| replaces c, as in its section 3.2."""

    class Kernels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, 2, 1, 2, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return (torch.tensor([[[[1.0, 3.0]], [[10.0, 30.0]]]]) * self.weight**2).sum() / 2

    made = METHODS["adahessian"](Kernels(), torch.zeros(1), 0.1, 0.0, eps=0.0)
    made.backward(made.model(torch.zeros(1)))
    made.optimizer.step()
    # The first step of bias-corrected averages is lr · g / D.
    expected = [[[[1 - 0.1 * 1 / 2, 1 - 0.1 * 3 / 2]], [[1 - 0.1 * 10 / 20, 1 - 0.1 * 30 / 20]]]]
    assert made.model.get_parameter("weight").tolist() == [
        [[pytest.approx(kernel) for kernel in rows] for rows in channel] for channel in expected
    ]
