"""Train a physics-informed network on Burgers' equation, with the steps that images and text have."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from experiments.datasets.burgers import BurgersSource, residual
from experiments.datasets.sources import Batch
from experiments.networks import build
from experiments.training.loop import evaluate
from experiments.training.methods import Setup
from experiments.visits.captured import Step, make_step
from experiments.visits.tasks import Task
from experiments.visits.training import seeded_setup, train_steps

__all__ = ["Residuals", "equation_batches", "equation_loss", "equation_step", "train_equation"]

EXAMPLES = 8
COORDINATES, SOLUTIONS = 2, 1


class Residuals(nn.Module):
    """A network together with the equation that it is to solve.

    Args:
        net: Computes u, ``(N, 1)``, from t and x, ``(N, 2)``.
        places: t and x where u is known, ``(M, 2)``.
    """

    def __init__(self, net: nn.Module, places: Tensor) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("places", places)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the residual at ``points``, ``(N,)``, and u where it is known, ``(M,)``."""
        return residual(self.net, points), self.net(self.places).squeeze(1)


def equation_loss(outputs: tuple[Tensor, Tensor], known: Tensor) -> Tensor:
    """Give the mean square of the residual, plus the mean squared error at the known values ``(M,)``."""
    unbalanced, values = outputs
    return unbalanced.square().mean() + (values - known).square().mean()


def equation_batches(source: BurgersSource, seed: int, count: int) -> list[Batch]:
    """Give as many batches of new collocation points ``(N, 2)``, each with the known values ``(M,)``."""
    epochs = (source.train_batches(len(source), seed, epoch) for epoch in range(count))
    return [(points, known[:, 2]) for epoch in epochs for points, known in epoch]


def equation_step(
    task: Task,
    method: str,
    settings: dict[str, float],
    options: dict[str, object],
    source: BurgersSource,
    seed: int,
) -> tuple[Setup, Step]:
    """Build the task's network with its optimizer, its weights decided by ``seed``, and the step that trains it."""
    sizes = {"width": task.width, "channels": COORDINATES, "classes": SOLUTIONS}
    net = build(task.network, seed=seed, **sizes).to(source.device)
    setup = seeded_setup(method, net, source.example_inputs(EXAMPLES), settings, options, seed)
    ((_, known),) = source.train_batches(len(source), seed, 0)
    together = Residuals(setup.model, known[:, :COORDINATES])
    return setup, make_step(replace(setup, model=together), equation_loss, None)


def train_equation(
    task: Task,
    method: str,
    settings: dict[str, float],
    options: dict[str, object],
    source: BurgersSource,
    seed: int,
    steps: int,
) -> dict[str, object]:
    """Train, and evaluate the plain network at the end; see :func:`experiments.visits.images.train_images`.

    Returns:
        ``score`` (correct digits: −log10 of the relative L2 error), ``loss`` (that error), the mean ``train_losses``
        of each eighth of the training, ``steps``.
    """
    setup, step = equation_step(task, method, settings, options, source, seed)
    means = train_steps(step, equation_batches(source, seed, steps), steps)
    found = evaluate(setup.finish(setup.model), source)
    return {"score": found.score, "loss": found.loss, "train_losses": means, "steps": steps}
