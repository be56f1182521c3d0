"""Train a network for a few hundred steps of SGD on CIFAR-10, then audit its Hessian: the numbers of docs/curvature.md.

``python -m experiments.curvature --network resnet18 --data data``
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from statistics import median

import click
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from experiments.batches import plain_batches
from experiments.pairs import Pair, affine_pairs, joint_block, pair_of
from experiments.short_training import Trained, training_options, with_bar
from sgdph_fx import Audit, audit
from sgdph_fx.report.files import write_text

__all__ = ["main"]


@click.command(
    help="Train for a few hundred steps, audit the Hessian, write audit.json, audit.md and audit.png."
)
@training_options
@click.option("--batch", type=int, default=64, show_default=True, help="Images audited.")
@click.option(
    "--channels", type=int, default=None, help="Numbers measured of each parameter; all by default."
)
@click.option("--pairs", is_flag=True, help="Measure the 2×2 blocks of scale and shift as well.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/curvature"), show_default=True)
def main(
    network: str,
    data: Path,
    width: int | None,
    steps: int,
    threads: int,
    batch: int,
    channels: int | None,
    pairs: bool,
    out: Path,
) -> None:
    """Train, audit, write and print."""
    torch.set_num_threads(threads)
    trained = Trained.on(data, network, width, steps)
    audited = next(plain_batches(trained.images, batch, trained.standard))
    found = with_bar(
        "audit",
        lambda told: audit(trained.prepared, cross_entropy, audited, channels=channels, progress=told),
    )
    write(found, out / network)
    click.echo(str(found))
    if pairs:
        measured = measure_pairs(trained.prepared.model, *audited)
        write_text(out / network / "pairs.json", json.dumps([asdict(p) for p in measured], indent=1) + "\n")
        click.echo(summary(measured))


def write(found: Audit, folder: Path) -> None:
    """The audit as JSON, Markdown and fig."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "audit.json", found.to_json())
    write_text(folder / "audit.md", found.to_markdown())
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
