"""Train a network for a few hundred steps on CIFAR-10, then audit its Hessian: the numbers of docs/curvature.md.

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

from experiments.datasets.batches import plain_batches
from experiments.hessian.affine_blocks import AffineBlock, affine_modules, joint_hessian, measure_block
from experiments.hessian.short_training import TrainedNetwork, training_options
from experiments.progress import run_with_progress
from sgdph_fx import Audit, audit
from sgdph_fx.report.files import write_text

__all__ = ["main"]


@click.command(
    help="Train for a few hundred steps, audit the Hessian, and write audit.json, audit.md and audit.png."
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
    trained = TrainedNetwork.from_folder(data, network, width, steps)
    audited = next(plain_batches(trained.images, batch, trained.standardizer))
    found = run_with_progress(
        "audit",
        lambda report: audit(trained.prepared, cross_entropy, audited, channels=channels, progress=report),
    )
    write(found, out / network)
    click.echo(str(found))
    if pairs:
        blocks = measure_affine_blocks(trained.prepared.model, *audited)
        text = json.dumps([asdict(block) for block in blocks], indent=1) + "\n"
        write_text(out / network / "pairs.json", text)
        click.echo(summary(blocks))


def write(found: Audit, folder: Path) -> None:
    """Write the audit as JSON, Markdown and a plot into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "audit.json", found.to_json())
    write_text(folder / "audit.md", found.to_markdown())
    found.plot(folder / "audit.png")


def measure_affine_blocks(model: nn.Module, inputs: Tensor, labels: Tensor) -> list[AffineBlock]:
    """Measure every norm's block of scale and shift, on one forward pass."""
    loss = cross_entropy(model(inputs), labels)
    measured = []
    for name, scale, shift in affine_modules(model):
        by_scale, by_shift = torch.autograd.grad(loss, (scale, shift), create_graph=True)
        block = joint_hessian((by_scale, by_shift), scale, shift)
        gradient = torch.cat([by_scale, by_shift]).detach().double().cpu()
        measured.append(measure_block(name, block, gradient))
    return measured


def summary(blocks: list[AffineBlock]) -> str:
    """Write a line for each norm, and medians."""
    lines = [
        f"{b.name:30} coupling {b.coupling:6.1%}  missed by the diagonal {b.missed_by_diagonal:6.1%}  "
        f"by 2×2 {b.missed_by_blocks:6.1%}  noise {b.probe_noise:5.2f}  "
        f"step {'-' if b.step_ratio is None else f'{b.step_ratio:.3f}'}"
        for b in blocks
    ]
    ratios = [b.step_ratio for b in blocks if b.step_ratio is not None]
    names = ("coupling", "missed_by_diagonal", "missed_by_blocks", "probe_noise")
    middle = [median(getattr(b, name) for b in blocks) for name in names]
    lines.append(
        "medians: coupling {:.1%}, missed by the diagonal {:.1%}, by 2×2 {:.1%}, noise {:.2f}".format(*middle)
        + (f", step {median(ratios):.3f} ({len(ratios)} of {len(blocks)})" if ratios else "")
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
