"""Train a network for a few hundred steps of SGD on CIFAR-10, then audit its Hessian: the numbers of docs/curvature.md.

``python -m experiments.curvature --network resnet18 --data data``
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from experiments.batches import Standard, augmented_batches, plain_batches
from experiments.data import MissingDataError, load
from experiments.formats import Images
from experiments.networks import build
from experiments.pairs import Pair, affine_pairs, joint_block, pair_of
from sgdph_fx import Audit, Prepared, audit, prepare

__all__ = ["NETWORKS", "main", "trained", "trained_on", "with_bar"]

T = TypeVar("T")

SEED = 0
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4


@dataclass(frozen=True, slots=True)
class Network:
    """A network at a width, and the learning rate with which SGD with momentum trains it.

    Args:
        make: Width → the network, its start decided by torch's global generator.
        width: The default, narrow enough for one processor core.
        lr: The learning rate.
    """

    make: Callable[[int], nn.Module]
    width: int
    lr: float


def convnext(width: int) -> nn.Module:
    """ConvNeXt of timm with a stem of 2×2 and two blocks in each of its four stages."""
    import timm

    dims = tuple(width << stage for stage in range(4))
    return timm.create_model("convnext_atto", patch_size=2, depths=(2, 2, 2, 2), dims=dims, num_classes=10)


def vit(width: int) -> nn.Module:
    """ViT of timm on patches of 4×4, with six blocks of three heads."""
    import timm

    size = {"img_size": 32, "patch_size": 4, "embed_dim": width, "depth": 6, "num_heads": 3}
    return timm.create_model("vit_tiny_patch16_224", num_classes=10, **size)


NETWORKS = {
    "resnet18": Network(lambda width: build("resnet18", width=width, seed=SEED), 8, 0.05),
    "vgg19": Network(lambda width: build("vgg19", width=width, seed=SEED), 16, 0.02),
    "convnext": Network(convnext, 16, 0.05),
    "vit": Network(vit, 48, 0.05),
}


@click.command(
    help="Train for a few hundred steps, audit the Hessian, write audit.json, audit.md and audit.png."
)
@click.option("--network", type=click.Choice(list(NETWORKS)), required=True)
@click.option("--data", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
@click.option("--width", type=int, default=None, help="Channels of the first layer; its default is narrow.")
@click.option("--steps", type=int, default=300, show_default=True)
@click.option("--batch", type=int, default=64, show_default=True, help="Images audited.")
@click.option(
    "--channels", type=int, default=None, help="Numbers measured of each parameter; all by default."
)
@click.option("--pairs", is_flag=True, help="Measure the 2×2 blocks of scale and shift as well.")
@click.option("--threads", type=int, default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/curvature"), show_default=True)
def main(
    network: str,
    data: Path,
    width: int | None,
    steps: int,
    batch: int,
    channels: int | None,
    pairs: bool,
    threads: int,
    out: Path,
) -> None:
    """Train, audit, write and print."""
    torch.set_num_threads(threads)
    images, standard, prepared = trained_on(data, network, width, steps)
    audited = next(plain_batches(images, batch, standard))
    found = with_bar(
        "audit", lambda told: audit(prepared, cross_entropy, audited, channels=channels, progress=told)
    )
    write(found, out / network)
    click.echo(str(found))
    if pairs:
        measured = measure_pairs(prepared.model, *audited)
        (out / network / "pairs.json").write_text(json.dumps([asdict(p) for p in measured], indent=1) + "\n")
        click.echo(summary(measured))


def trained_on(data: Path, network: str, width: int | None, steps: int) -> tuple[Images, Standard, Prepared]:
    """The training images of CIFAR-10 in a folder, and a network trained on them; its loss is printed.

    Raises:
        ClickException: if the images are not there.
    """
    try:
        images = load("cifar10", data).train
    except MissingDataError as error:
        raise click.ClickException(str(error)) from error
    standard = Standard.of(images)
    prepared, loss = trained(NETWORKS[network], width, images, standard, steps)
    click.echo(f"Mean loss of the last {min(steps, 20)} of {steps} steps: {loss:.3f}")
    return images, standard, prepared


def trained(
    network: Network, width: int | None, images: Images, standard: Standard, steps: int
) -> tuple[Prepared, float]:
    """The prepared network after so many steps of SGD with momentum, and its mean loss over the last 20."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        net = network.make(width or network.width)
        prepared = prepare(net, standard(images[:2].pixels))
    optimizer = torch.optim.SGD(
        prepared.param_groups, lr=network.lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    losses = []
    size = min(128, len(images))
    for epoch in range(1 + steps * size // len(images)):
        for inputs, labels in augmented_batches(images, size, standard, SEED, epoch):
            if len(losses) == steps:
                break
            optimizer.zero_grad()
            loss = cross_entropy(prepared.model(inputs), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return prepared, sum(losses[-20:]) / max(1, len(losses[-20:]))


def with_bar(what: str, run: Callable[[Callable[[int, int], None]], T]) -> T:
    """Run with a progress bar of that name on standard error, where that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:  # older releases of rich end a disabled bar, too, by an empty line
        return run(lambda done, total: None)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=None)
        return run(lambda done, total: bar.update(task, completed=done, total=total))


def write(found: Audit, folder: Path) -> None:
    """The audit as JSON, Markdown and picture."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "audit.json").write_text(found.to_json())
    (folder / "audit.md").write_text(found.to_markdown())
    found.plot(folder / "audit.png")


def measure_pairs(model: nn.Module, inputs: Tensor, labels: Tensor) -> list[Pair]:
    """Every norm's pair, on one forward pass."""
    loss = cross_entropy(model(inputs), labels)
    measured = []
    for name, scale, shift in affine_pairs(model):
        gradients = torch.autograd.grad(loss, (scale, shift), create_graph=True)
        block = joint_block(gradients, scale, shift)
        measured.append(pair_of(name, block, torch.cat(gradients).detach().double()))
    return measured


def summary(measured: list[Pair]) -> str:
    """A line for each norm, and medians."""
    lines = [
        f"{p.name:30} coupling {p.coupling:6.1%}  missed by the diagonal {p.missed:6.1%}  "
        f"by 2×2 {p.left:6.1%}  noise {p.noise:5.2f}  gain {'-' if p.gain is None else f'{p.gain:.3f}'}"
        for p in measured
    ]
    gains = [p.gain for p in measured if p.gain is not None]
    middle = [
        median(getattr(p, field) for p in measured) for field in ("coupling", "missed", "left", "noise")
    ]
    lines.append(
        "medians: coupling {:.1%}, missed {:.1%}, left {:.1%}, noise {:.2f}".format(*middle)
        + (f", gain {median(gains):.3f} ({len(gains)} of {len(measured)})" if gains else "")
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
