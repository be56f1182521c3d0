"""Burgers' equation in one dimension, for a physics-informed network (Raissi et al. 2019).

u_t + u u_x = ν u_xx on t in [0, 1], x in [−1, 1], with ν = 0.01 / π, u(0, x) = −sin πx and u(t, ±1) = 0. The
network computes u from (t, x). It is trained to make the residual of the equation small at random points, the
collocation points, and to fit the values at t = 0 and x = ±1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from experiments.datasets.objectives import Objective, Score
from experiments.distributed import SINGLE_PROCESS, World

__all__ = ["BurgersObjective", "BurgersSource", "exact_solution", "residual"]

VISCOSITY = 0.01 / math.pi
QUADRATURE_POINTS = 100
KNOWN_POINTS = 100
EVAL_BATCH = 4096
GRID = (51, 201)
"""Points in t and x of the grid to evaluate on."""


def exact_solution(points: Tensor) -> Tensor:
    """Compute u by the Cole-Hopf transform, with Gauss-Hermite quadrature in float64.

    Args:
        points: t and x, ``(N, 2)``.

    Returns:
        u, ``(N,)`` float64, on the CPU.
    """
    t, x = points.detach().double().cpu().numpy().T
    nodes, weights = np.polynomial.hermite.hermgauss(QUADRATURE_POINTS)
    y = x[:, None] - 2 * np.sqrt(VISCOSITY * t)[:, None] * nodes
    exponent = -np.cos(np.pi * y) / (2 * np.pi * VISCOSITY)
    density = weights * np.exp(exponent - exponent.max(axis=1, keepdims=True))
    return torch.from_numpy(-(np.sin(np.pi * y) * density).sum(axis=1) / density.sum(axis=1))


def residual(model: nn.Module, points: Tensor) -> Tensor:
    """Compute u_t + u u_x − ν u_xx at each point, with its graph.

    Args:
        model: Computes u, ``(N, 1)``, from points.
        points: t and x, ``(N, 2)``.

    Returns:
        The residual, ``(N,)``.
    """
    points = points.detach().requires_grad_()
    u = model(points)
    (first,) = torch.autograd.grad(u.sum(), points, create_graph=True)
    u_t, u_x = first.unbind(1)
    (second,) = torch.autograd.grad(u_x.sum(), points, create_graph=True)
    r: Tensor = u_t + u.squeeze(1) * u_x - VISCOSITY * second[:, 1]
    return r


class BurgersObjective:
    """The mean square of the residual, plus the mean squared error at the known values.

    Training targets are known values ``(M, 3)``: t, x and u. Evaluation targets are u, ``(N,)``.
    """

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the loss of collocation points and known values, and its sums."""
        known = (model(targets[:, :2]).squeeze(1) - targets[:, 2]).square().mean()
        loss = residual(model, inputs).square().mean() + known
        one = torch.ones((), device=loss.device)
        return loss, torch.stack([loss.detach().float(), one])

    def eval_sums(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Sum the squared error and the squared solution."""
        error = model(inputs).squeeze(1).double() - targets.double()
        return torch.stack([error.square().sum(), targets.double().square().sum()])

    def train_score(self, sums: Tensor) -> Score:
        """Give the mean loss over batches."""
        loss, batches = sums.tolist()
        return Score(loss / batches)

    def eval_score(self, sums: Tensor) -> Score:
        """Give the relative L2 error, and the number of correct digits: −log10 of it."""
        error, size = sums.tolist()
        relative = math.sqrt(error / size)
        return Score(relative, -math.log10(max(relative, 1e-30)) if math.isfinite(relative) else math.nan)


class BurgersSource:
    """Collocation points, drawn for each epoch, as a :class:`experiments.datasets.sources.DataSource`.

    Args:
        train_size: Number of collocation points in an epoch.
        test_size: Number of points to evaluate on, evenly spread over the grid; None is all 10,251.
        held_out: Evaluate on random points of the domain, instead of the grid.
        device: Device of the points.
    """

    classes = 1

    def __init__(self, train_size: int, test_size: int | None, held_out: bool, device: torch.device) -> None:
        self._train_size = train_size
        self._device = device
        grid = torch.cartesian_prod(torch.linspace(0, 1, GRID[0]), torch.linspace(-1, 1, GRID[1]))
        if held_out:
            grid = _uniform(len(grid), torch.Generator().manual_seed(1))
        if test_size is not None:
            grid = grid[torch.linspace(0, len(grid) - 1, test_size).long()]
        self._points, self._solution = grid.to(device), exact_solution(grid).to(device)
        known = _known_points(torch.Generator().manual_seed(0))
        values = torch.where(known[:, 0] == 0, -torch.sin(math.pi * known[:, 1]), torch.zeros(len(known)))
        self._known = torch.cat([known, values[:, None]], 1).to(device)

    @property
    def device(self) -> torch.device:
        """Device of the points."""
        return self._device

    @property
    def objective(self) -> Objective:
        """The residual and the known values."""
        return BurgersObjective()

    def __len__(self) -> int:
        return self._train_size

    def example_inputs(self, size: int) -> Tensor:
        """Give the first points of the grid."""
        return self._points[:size]

    def train_batches(
        self, size: int, seed: int, epoch: int, world: World = SINGLE_PROCESS
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Give random collocation points, each batch with all known values."""
        points = _uniform(self._train_size, torch.Generator().manual_seed(seed * 1_000_003 + epoch))
        for start in range(0, self._train_size - size + 1, size):
            batch = points[start : start + size][world.rank :: world.size]
            yield batch.to(self._device), self._known

    def eval_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Give the points to evaluate on, with the exact solution."""
        for start in range(0, len(self._points), EVAL_BATCH):
            part = slice(start, start + EVAL_BATCH)
            yield self._points[part], self._solution[part]


def _uniform(count: int, generator: torch.Generator) -> Tensor:
    """Draw points of the domain, ``(count, 2)`` float32."""
    return torch.rand(count, 2, generator=generator) * torch.tensor([1.0, 2.0]) - torch.tensor([0.0, 1.0])


def _known_points(generator: torch.Generator) -> Tensor:
    """Draw points at t = 0, then as many at x = −1 and x = 1 together."""
    start, border = (_uniform(KNOWN_POINTS, generator) for _ in range(2))
    start[:, 0] = 0
    border[:, 1] = torch.arange(KNOWN_POINTS) % 2 * 2 - 1.0
    return torch.cat([start, border])
