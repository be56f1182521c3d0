"""How much noisier the Hessian is of part of a batch: the numbers of docs/curvature.md.

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

from experiments.batches import augmented_batches
from experiments.short_training import Trained, training_options, with_bar
from sgdph_fx import Prepared
from sgdph_fx.curvature.forward_over_reverse import product_only
from sgdph_fx.report.files import write_text

__all__ = ["Noise", "main", "measure", "noise_of"]

# Not those of the training, so that the batches are new.
BATCH_SEED = 1
SHARES = (1.0, 0.5, 0.25, 0.125)


@dataclass(frozen=True, slots=True)
class Noise:
    """What one batch tells of a parameter's (H·1), beside what many tell.

    Args:
        parameter: Its name.
        share: Of the batch, the part that the product was taken on.
        error: Root mean square distance of one batch's product to the mean over all other whole batches, as a
            share of that mean's norm.
    """

    parameter: str
    share: float
    error: float


@click.command(
    help="Train for a few hundred steps, then compare the Hessian of parts of a batch with that of many."
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
    trained = Trained.on(data, network, width, steps)
    drawn = list(islice(augmented_batches(trained.images, batch, trained.standard, BATCH_SEED, 0), batches))
    found = with_bar("products", lambda told: measure(trained.prepared, drawn, parameters, told))
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / f"{network}.json", json.dumps([asdict(noise) for noise in found], indent=1) + "\n")
    click.echo(summary(found), nl=False)


def measure(
    prepared: Prepared,
    batches: Sequence[tuple[Tensor, Tensor]],
    count: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Noise]:
    """The noise of ``count`` second-order parameters, on each share of a batch."""
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
            found.append(Noise(names[parameter], share, noise_of(part, whole)))
        progress(done, count)
    return found


def noise_of(part: Tensor, whole: Tensor) -> float:
    """Distance of each row of ``part`` to the mean of the other rows of ``whole``, both ``(batches, n)``."""
    others = (whole.sum(0) - whole) / (len(whole) - 1)
    distance = (part - others).square().sum(1).mean().sqrt()
    return (distance / whole.mean(0).norm()).item()


def summary(found: Sequence[Noise]) -> str:
    """Medians over parameters, as a Markdown table."""
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
