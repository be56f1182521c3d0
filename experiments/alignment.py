"""Measure how much of the Hessian-vector product is the gradient, by layer and along a training.

``python -m experiments.alignment --network resnet18 --data data``

The ones-probe returns H·1 of the due parameter's block. Where γ and β of a norm feed ReLU, a convolution and another
batch norm, the loss does not change when both are scaled together, so H·(γ, β) = −g. At the start, with γ = 1 and
β = 0, that is H·1 = −g for γ: the product is the gradient, and holds no curvature of its own. This command measures
what becomes of that later.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import click
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy

from experiments.datasets.batches import plain_batches
from experiments.hessian.moments import measured_along
from experiments.hessian.short_training import ShortTraining, load_images, training_options
from experiments.reports.tables import markdown
from sgdph_fx import Prepared
from sgdph_fx.report.files import write_text

__all__ = ["Alignment", "main", "measure", "medians"]

DEFAULT_MOMENTS = (0, 10, 30, 100, 300)


@dataclass(frozen=True, slots=True)
class Alignment:
    """Compare H·1 of one parameter's block with the gradient g, at one moment of a training.

    Args:
        step: Steps taken so far.
        parameter: Its name.
        role: Its role in the plan: ``norm.weight``, ``norm.bias``, ``gain``, ``bias``, ...
        cosine: Cosine of H·1 and −g.
        cosine_of_sizes: Cosine of |H·1| and |g|, the two that an optimizer would divide by.
        ratio: Norm of H·1 divided by that of g.
        invariance: ‖H·(γ, β) + g‖ / ‖g‖ for the norm that the parameter belongs to: 0 where the loss does not
            change when γ and β are scaled together. None for parameters that are not a norm's.
    """

    step: int
    parameter: str
    role: str
    cosine: float
    cosine_of_sizes: float
    ratio: float
    invariance: float | None


@click.command(help="Train for a few hundred steps, and compare H·1 with the gradient on the way.")
@training_options
@click.option("--batch", type=int, default=128, show_default=True, help="Images to measure on.")
@click.option(
    "--at",
    "moments",
    type=click.IntRange(0),
    multiple=True,
    default=DEFAULT_MOMENTS,
    show_default=True,
    help="Steps after which to measure.",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/alignment"), show_default=True)
def main(
    network: str,
    data: Path,
    width: int | None,
    steps: int,
    threads: int,
    batch: int,
    moments: tuple[int, ...],
    out: Path,
) -> None:
    """Train, measure, write and print."""
    torch.set_num_threads(threads)
    training = ShortTraining(network, width, load_images(data))
    inputs, labels = next(plain_batches(training.images, batch, training.standardizer))
    found = measured_along(
        training.steps(steps), steps, moments, lambda step: measure(training.prepared, inputs, labels, step)
    )
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / f"{network}.json", json.dumps([asdict(each) for each in found], indent=1) + "\n")
    click.echo(summary(found), nl=False)


def measure(prepared: Prepared, inputs: Tensor, labels: Tensor, step: int = 0) -> list[Alignment]:
    """Compare H·1 with −g for every second-order parameter, in training mode, by torch's double backward.

    Args:
        prepared: The network.
        inputs: Images ``(N, C, H, W)``.
        labels: Labels ``(N,)``.
        step: What to write down as the moment.
    """
    buffers = {name: value.clone() for name, value in prepared.model.named_buffers()}
    loss = cross_entropy(prepared.model.train()(inputs), labels)
    names: dict[Tensor, str] = {p: name for name, p in prepared.model.named_parameters()}
    roles = {
        p: group["role"] for group in prepared.param_groups if group["order"] == 2 for p in group["params"]
    }
    parameters = [p for p in names if p in roles]
    gradients = dict(zip(parameters, torch.autograd.grad(loss, parameters, create_graph=True), strict=True))
    invariances = dict(_invariances(prepared.model, gradients))
    found = []
    for parameter, gradient in gradients.items():
        (product,) = torch.autograd.grad(gradient.sum(), parameter, retain_graph=True)
        found.append(
            _compare(step, names[parameter], roles[parameter], product, gradient, invariances.get(parameter))
        )
    with torch.no_grad():
        for name, value in prepared.model.named_buffers():
            value.copy_(buffers[name])
    return found


def _invariances(model: nn.Module, gradients: dict[Tensor, Tensor]) -> Iterator[tuple[Tensor, float]]:
    """For γ and β of each norm, ‖H·(γ, β) + g‖ / ‖g‖ with H their joint block."""
    for module in model.modules():
        scale, shift = getattr(module, "weight", None), getattr(module, "bias", None)
        if scale not in gradients or shift not in gradients or "Norm" not in type(module).__name__:
            continue
        own = (gradients[scale], gradients[shift])
        dot = (own[0] * scale.detach()).sum() + (own[1] * shift.detach()).sum()
        products = torch.autograd.grad(dot, (scale, shift), retain_graph=True)
        gradient = torch.cat(own).detach()
        value = float((torch.cat(products) + gradient).norm() / gradient.norm())
        yield scale, value
        yield shift, value


def _compare(
    step: int, name: str, role: str, product: Tensor, gradient: Tensor, invariance: float | None
) -> Alignment:
    h, g = product.detach().flatten().double(), gradient.detach().flatten().double()
    return Alignment(
        step,
        name,
        role,
        float(cosine_similarity(h, -g, 0)),
        float(cosine_similarity(h.abs(), g.abs(), 0)),
        float(h.norm() / g.norm()),
        invariance,
    )


def summary(found: Sequence[Alignment]) -> str:
    """Write the cosines as Markdown tables: medians by kind of parameter, then each parameter."""
    steps, kinds = _steps_and_kinds(found)
    lines = []
    for name, kind in kinds.items():
        cosines = (f"{a.cosine:+.2f}" for a in found if a.parameter == name)
        lines.append([name, kind, *cosines])
    single = markdown(["", "kind", *(f"step {step}" for step in steps)], lines)
    return f"{medians(found)}\n\n{single}\n"


def medians(found: Sequence[Alignment]) -> str:
    """Write the median cosine of each kind of parameter, with the least and the greatest."""
    steps, kinds = _steps_and_kinds(found)
    lines = []
    for kind in dict.fromkeys(kinds.values()):
        names = [name for name, own in kinds.items() if own == kind]
        cells = (_middle([a.cosine for a in found if a.step == s and a.parameter in names]) for s in steps)
        lines.append([kind, str(len(names)), *cells])
    return markdown(["", "parameters", *(f"step {step}" for step in steps)], lines)


def _steps_and_kinds(found: Sequence[Alignment]) -> tuple[list[int], dict[str, str]]:
    steps = sorted({each.step for each in found})
    return steps, {each.parameter: _kind(each) for each in found if each.step == steps[0]}


def _kind(each: Alignment) -> str:
    if each.invariance is None:
        return each.role
    return each.role + (", scale-invariant" if each.invariance < 0.01 else "")


def _middle(values: Sequence[float]) -> str:
    return f"{median(values):+.2f} ({min(values):+.2f} to {max(values):+.2f})"


if __name__ == "__main__":
    main()
