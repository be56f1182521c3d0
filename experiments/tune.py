"""Find a learning rate and a weight decay: every method on the same grid, evaluated on held-out images.

``python -m experiments.tune --network vgg11 --method sgdm --lr 0.01 --lr 0.03 --weight-decay 5e-4 ...``
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import click
import torch
from rich.console import Console

from experiments.datasets.load import DATASETS, MissingDataError
from experiments.networks import NETWORKS
from experiments.running.runner import Runner
from experiments.training.config import RunConfig
from experiments.training.methods import METHODS

__all__ = ["main"]


@click.command(
    help="Train each method with each learning rate and weight decay, and evaluate on held-out images."
)
@click.option("--data", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
@click.option("--dataset", type=click.Choice(list(DATASETS)), default="cifar10", show_default=True)
@click.option("--network", type=click.Choice(list(NETWORKS)), required=True)
@click.option(
    "--method",
    "--system",
    "methods",
    type=click.Choice(list(METHODS)),
    multiple=True,
    required=True,
    help="Several may be given. --system is the option's old name.",
)
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
    methods: tuple[str, ...],
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
        runner = Runner.in_memory(dataset, data, train_size, True, out, torch.device("cpu"))
    except (MissingDataError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    configs = [
        RunConfig(network, width, method, lr, weight_decay, epochs, seed=seed)
        for method, lr, weight_decay in product(methods, lrs, weight_decays)
    ]
    for config, run in zip(configs, runner.run(configs, Console(stderr=True)), strict=True):
        last = run.epochs[-1]
        click.echo(
            f"{network} {config.method} lr {config.lr:g} weight decay {config.weight_decay:g}: "
            + ("diverged" if last.diverged else f"{last.test_accuracy:.2f}%, loss {last.test_loss:.3f}")
        )


if __name__ == "__main__":
    main()
