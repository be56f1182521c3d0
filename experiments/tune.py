"""Find a learning rate and a weight decay: every system on the same grid, judged by held-out images.

``python -m experiments.tune --network vgg11 --system sgdm --lr 0.01 --lr 0.03 --weight-decay 5e-4 ...``
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import click
import torch
from rich.console import Console

from experiments.data import DATASETS, MissingDataError
from experiments.networks import NETWORKS
from experiments.running import Bench
from experiments.systems import SYSTEMS
from experiments.training import Recipe

__all__ = ["main"]


@click.command(help="Train each system with each learning rate and weight decay; judge by held-out images.")
@click.option("--data", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
@click.option("--dataset", type=click.Choice(list(DATASETS)), default="cifar10", show_default=True)
@click.option("--network", type=click.Choice(list(NETWORKS)), required=True)
@click.option("--system", "systems", type=click.Choice(list(SYSTEMS)), multiple=True, required=True)
@click.option("--lr", "lrs", type=float, multiple=True, required=True)
@click.option("--weight-decay", "weight_decays", type=float, multiple=True, required=True)
@click.option("--width", type=int, default=16, show_default=True, help="Channels of the first convolution.")
@click.option("--epochs", type=int, default=15, show_default=True)
@click.option("--train-size", type=int, default=10_000, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--threads", type=int, default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/tune"), show_default=True)
def main(
    data: Path,
    dataset: str,
    network: str,
    systems: tuple[str, ...],
    lrs: tuple[float, ...],
    weight_decays: tuple[float, ...],
    width: int,
    epochs: int,
    train_size: int,
    seed: int,
    threads: int,
    out: Path,
) -> None:
    """Run the grid and print a line for each of its points."""
    torch.set_num_threads(threads)
    try:
        bench = Bench.in_memory(dataset, data, train_size, True, out, torch.device("cpu"))
    except (MissingDataError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    recipes = [
        Recipe(network, width, system, lr, weight_decay, epochs, seed=seed)
        for system, lr, weight_decay in product(systems, lrs, weight_decays)
    ]
    for recipe, run in zip(recipes, bench.run(recipes, Console(stderr=True)), strict=True):
        last = run.epochs[-1]
        click.echo(
            f"{network} {recipe.system} lr {recipe.lr:g} weight decay {recipe.weight_decay:g}: "
            + ("diverged" if last.diverged else f"{last.test_accuracy:.2f}%, loss {last.test_loss:.3f}")
        )


if __name__ == "__main__":
    main()
