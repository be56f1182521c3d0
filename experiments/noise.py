"""Measure how much noisier the Hessian of part of a batch is: the numbers of docs/curvature.md.

``python -m experiments.noise --network resnet18 --data data``
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median

import click
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from experiments.datasets.batches import augmented_batches
from experiments.hessian.short_training import TrainedNetwork, training_options
from experiments.progress import run_with_progress
from sgdph_fx import Prepared
from sgdph_fx.curvature.forward_over_reverse import product_only
from sgdph_fx.report.files import write_text

__all__ = ["Noise", "main", "measure", "relative_noise"]

# Not the training's seed, so that the batches are new.
BATCH_SEED = 1
SHARES = (1.0, 0.5, 0.25, 0.125)


@dataclass(frozen=True, slots=True)
class Noise:
    """What one batch says about a parameter's H·1, compared with many batches.

    Args:
        parameter: Its name.
        share: The part of the batch that the product was taken on.
        error: Root mean square distance of one batch's product from the mean over all other whole batches, as a
            share of that mean's norm.
    """

    parameter: str
    share: float
    error: float


@click.command(
    help="Train for a few hundred steps, then compare the Hessian of parts of a batch with that of many batches."
)
@training_options
@click.option("--batch", type=int, default=128, show_default=True, help="Images of a whole batch.")
@click.option(
    "--batches", type=click.IntRange(2), default=16, show_default=True, help="Whole batches compared."
)
@click.option("--parameters", type=click.IntRange(1), default=12, show_default=True, help="Evenly spread.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/noise"), show_default=True)
def main(
    network: str,
    data: Path,
    width: int | None,
    steps: int,
    threads: int,
    batch: int,
    batches: int,
    parameters: int,
    out: Path,
) -> None:
    """Train, measure, write and print."""
    torch.set_num_threads(threads)
    trained = TrainedNetwork.from_folder(data, network, width, steps)
    every = augmented_batches(trained.images, batch, trained.standardizer, BATCH_SEED, 0)
    drawn = list(islice(every, batches))
    found = run_with_progress("products", lambda report: measure(trained.prepared, drawn, parameters, report))
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / f"{network}.json", json.dumps([asdict(noise) for noise in found], indent=1) + "\n")
    click.echo(summary(found), nl=False)


def measure(
    prepared: Prepared,
    batches: Sequence[tuple[Tensor, Tensor]],
    count: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Noise]:
    """Measure the noise of ``count`` second-order parameters, on each share of a batch.

    Args:
        prepared: The network.
        batches: Inputs and labels of whole batches.
        count: How many parameters, evenly spread over the network.
        progress: Called with the number of parameters done, and their total.
    """
    second = [p for group in prepared.param_groups if group["order"] == 2 for p in group["params"]]
    count = min(count, len(second))
    chosen = [second[int((i + 0.5) * len(second) / count)] for i in range(count)]
    names = {parameter: name for name, parameter in prepared.model.named_parameters()}
    found = []
    for done, parameter in enumerate(chosen, 1):
        row_sums = _row_sums(prepared.model, parameter)
        whole = torch.stack([row_sums(*batch) for batch in batches])
        for share in SHARES:
            part = whole if share == 1 else torch.stack([row_sums(*_part(batch, share)) for batch in batches])
            found.append(Noise(names[parameter], share, relative_noise(part, whole)))
        progress(done, count)
    return found


def relative_noise(part: Tensor, whole: Tensor) -> float:
    """Measure the distance of each row of ``part`` from the mean of the other rows of ``whole``.

    Args:
        part: One product for each batch, ``(batches, n)``, taken on part of the batch.
        whole: The same, taken on the whole batch.

    Returns:
        The root mean square distance, as a share of the norm of the mean of ``whole``.
    """
    others = (whole.sum(0) - whole) / (len(whole) - 1)
    distance = (part - others).square().sum(1).mean().sqrt()
    ratio: float = (distance / whole.mean(0).norm()).item()
    return ratio


def summary(found: Sequence[Noise]) -> str:
    """Write medians over parameters as a Markdown table."""
    lines = ["| part of the batch | error | from | to |", "|---:|---:|---:|---:|"]
    for share in SHARES:
        errors = [noise.error for noise in found if noise.share == share]
        lines.append(f"| {share:.3g} | {median(errors):.0%} | {min(errors):.0%} | {max(errors):.0%} |")
    return "\n".join([*lines, ""])


def _row_sums(model: nn.Module, parameter: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    def row_sums(inputs: Tensor, labels: Tensor) -> Tensor:
        product = product_only(cross_entropy(model(inputs), labels), parameter, torch.ones_like(parameter))
        assert product is not None
        return product.flatten().double()

    return row_sums


def _part(batch: tuple[Tensor, Tensor], share: float) -> tuple[Tensor, Tensor]:
    size = int(share * len(batch[0]))
    return batch[0][:size], batch[1][:size]


if __name__ == "__main__":
    main()
