"""What the log says of a recipe file's cells: their runs, and the settings that tuning chose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.recipe_files import Cell, Experiment, Images
from experiments.records import Log, Run
from experiments.training import Epoch, Recipe

__all__ = ["Outcome", "gather", "settled", "trials"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A cell and its runs that came to their end.

    Args:
        cell: The place of the table.
        recipe: Its run with seed 0, learning rate and weight decay chosen; None while tuning goes on.
        runs: One for each seed, from 0 on without a gap.
        trials: The runs of its grid.
    """

    cell: Cell
    recipe: Recipe | None
    runs: tuple[Run, ...]
    trials: tuple[Run, ...]

    def last(self, of: Callable[[Epoch], float]) -> list[float]:
        """A number of the last epoch, for each seed; runs that diverged have none worth a mean, only NaN."""
        return [of(run.epochs[-1]) for run in self.runs]

    @property
    def accuracies(self) -> list[float]:
        """Final test accuracy in percent, for each seed."""
        return self.last(lambda epoch: epoch.test_accuracy)

    @property
    def diverged(self) -> int:
        """Number of runs that ended in a loss that is no number."""
        return sum(run.epochs[-1].diverged for run in self.runs)

    def seconds(self, processor: bool) -> float:
        """Mean time of one epoch: the processor's, which leaves out what other programs take, or the wall's."""
        per_epoch = [
            (last.cpu_seconds if processor else last.seconds) / last.epoch
            for last in (run.epochs[-1] for run in self.runs)
        ]
        return fmean(per_epoch)


def gather(experiment: Experiment, file: Path, seeds: int | None = None) -> list[Outcome]:
    """What the log ``file`` has of each cell, without any images at hand.

    Args:
        experiment: The recipe file as read.
        file: The log; where it is not there, nothing has been run.
        seeds: Seeds to look for; None is as many as the recipe file says.
    """
    return [_outcome(experiment, cell, file, seeds or experiment.seeds) for cell in experiment.cells]


def trials(experiment: Experiment, cell: Cell) -> list[Recipe]:
    """The grid of a cell, or of the cell as which it is tuned; empty where its settings are given."""
    searched = experiment.cell(cell.row, cell.tuned_as) if cell.tuned_as else cell
    tuning = experiment.tuning
    if tuning is None:
        return []
    epochs = min(tuning.epochs, searched.recipe.epochs)
    return [
        replace(searched.recipe, lr=lr, weight_decay=weight_decay, epochs=epochs, seed=tuning.seed)
        for lr, weight_decay in searched.grid
    ]


def settled(cell: Cell, tried: Sequence[Run]) -> Recipe:
    """The cell's recipe with the settings of the trial that was most accurate on held-out images."""
    if not tried:
        return cell.recipe
    best = max(tried, key=_merit).recipe
    return replace(cell.recipe, lr=best.lr, weight_decay=best.weight_decay)


def _outcome(experiment: Experiment, cell: Cell, file: Path, seeds: int) -> Outcome:
    held_out = Log(file, _described(cell.images, "held-out images"))
    tried = [held_out.run(recipe) for recipe in trials(experiment, cell)]
    if not all(run.complete for run in tried):
        return Outcome(cell, None, (), tuple(tried))
    recipe = settled(cell, tried)
    log = Log(file, _described(cell.images, "test images"))
    runs: list[Run] = []
    for seed in range(seeds):
        run = log.run(replace(recipe, seed=seed))
        if not run.complete:
            break
        runs.append(run)
    return Outcome(cell, recipe, tuple(runs), tuple(tried))


def _described(images: Images, judged_by: str) -> dict[str, Any]:
    """The part of a line that tells which images it is about, as far as the recipe file decides it."""
    sizes = {"train_size": images.train_size}
    if judged_by == "test images":
        sizes["test_size"] = images.test_size
    known = {name: size for name, size in sizes.items() if size is not None}
    return {"dataset": images.dataset, "judged_by": judged_by, **known}


def _merit(run: Run) -> tuple[float, float]:
    """Accuracy, then low loss; a run that diverged is worse than all others."""
    last = run.epochs[-1]
    return (-1.0, 0.0) if last.diverged else (last.test_accuracy, -last.test_loss)
