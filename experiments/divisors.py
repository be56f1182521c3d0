"""Compare what SGD-PH's step could divide by, along a training: |H·1|, Gauss-Newton's diagonal, or |g|.

``python -m experiments.divisors --network vgg11 --data data``

The step of a channel-wise parameter is g / (D + ε). The paper's D is a moving average of |H·1|; other options put
Gauss-Newton's diagonal or |g| in its place. This command averages each D over a few batches, as the optimizer does over
refreshes, and compares the D and the steps that they give. Where the steps agree, the choice of curvature can change
little but the size of the step. The two of a pair are averaged over different batches. Each is also compared with
itself, so that you can see how much of a difference is noise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median

import click
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cosine_similarity

from experiments.hessian.moments import measured_along
from experiments.hessian.short_text_training import ShortTextTraining
from experiments.hessian.short_training import SETTINGS, ShortTraining, load_images
from experiments.reports.tables import markdown
from sgdph_fx import Prepared
from sgdph_fx.curvature import gauss_newton_diagonal, sign_key
from sgdph_fx.report.files import write_text

__all__ = ["Comparison", "compare", "main", "summary"]

TEXT = "language"
MOMENTS = (0, 100, 400)
EPSILON = 1e-4
"""SGDPH's default ``eps``."""
DIVISORS = ("g", "H·1", "Gauss-Newton")
PAIRS = (("H·1", "g"), ("Gauss-Newton", "g"), ("Gauss-Newton", "H·1"), *((each, each) for each in DIVISORS))

Loss = Callable[[Tensor, Tensor], Tensor]
Batches = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two divisors of one parameter's step, at one moment of a training.

    Args:
        step: Steps taken so far.
        parameter: Its name.
        role: Its role in the plan: ``norm.weight``, ``gain``, ``bias``, ...
        pair: Names of the two, as in :data:`PAIRS`. The first is averaged over every other batch, the second over the
            rest.
        divisors: Cosine of the two D.
        steps: Cosine of the two steps g / (D + ε).
        ratio: Norm of the first D divided by that of the second.
        alignment: Cosine of the mean of H·1 and of −g, with their signs; the same for all pairs.
    """

    step: int
    parameter: str
    role: str
    pair: tuple[str, str]
    divisors: float
    steps: float
    ratio: float
    alignment: float


@click.command(
    help="Train for a few hundred steps, and compare what SGD-PH's step could divide by on the way."
)
@click.option("--network", type=click.Choice([*SETTINGS, TEXT]), required=True)
@click.option("--data", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
@click.option("--width", type=int, help="Channels of the first layer; narrow by default. Images only.")
@click.option("--at", "moments", type=click.IntRange(0), multiple=True, default=MOMENTS, show_default=True)
@click.option(
    "--batches",
    type=click.IntRange(2),
    default=16,
    show_default=True,
    help="Batches; half of them for each D.",
)
@click.option("--batch", type=int, default=32, show_default=True, help="Images, or sequences, of each.")
@click.option("--threads", type=int, default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/divisors"), show_default=True)
def main(
    network: str,
    data: Path,
    width: int | None,
    moments: tuple[int, ...],
    batches: int,
    batch: int,
    threads: int,
    out: Path,
) -> None:
    """Train, measure, write and print."""
    torch.set_num_threads(threads)
    if network == TEXT:
        training: ShortTraining | ShortTextTraining = ShortTextTraining(data)
    else:
        training = ShortTraining(network, width, load_images(data))
    drawn = list(islice(training.new_batches(batch), batches))
    last = max(moments)
    found = measured_along(
        training.steps(last),
        last,
        moments,
        lambda step: compare(training.prepared, training.loss_fn, drawn, step),
    )
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / f"{network}.json", json.dumps([asdict(each) for each in found], indent=1) + "\n")
    click.echo(summary(found), nl=False)


def compare(prepared: Prepared, loss_fn: Loss, batches: Batches, step: int = 0) -> list[Comparison]:
    """Compare the divisors of every second-order parameter, in training mode, by torch's double backward.

    Args:
        prepared: The network.
        loss_fn: ``loss_fn(model(inputs), targets)``.
        batches: Inputs and targets, at least two. Each of a pair is averaged over half of them.
        step: What to write down as the moment.
    """
    model = prepared.model.train()
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    second = {
        p: group["role"] for group in prepared.param_groups if group["order"] == 2 for p in group["params"]
    }
    names = {p: name for name, p in model.named_parameters() if p in second}
    with sdpa_kernel(SDPBackend.MATH):  # the attention of a CPU's other kernel has no second derivative
        drawn = [
            _on_batch(loss_fn(model(x), y), list(names), number) for number, (x, y) in enumerate(batches)
        ]
    found = []
    for place, (parameter, name) in enumerate(names.items()):
        gradient, product, gauss_newton = (
            torch.stack([batch[kind][place].flatten().double() for batch in drawn]) for kind in range(3)
        )
        sizes = {"g": gradient.abs(), "H·1": product.abs(), "Gauss-Newton": gauss_newton}
        mean = gradient.mean(0)
        alignment = float(cosine_similarity(product.mean(0), -mean, 0))
        for pair in PAIRS:
            one, two = sizes[pair[0]][0::2].mean(0), sizes[pair[1]][1::2].mean(0)
            divisors, ratio = cosine_similarity(one, two, 0), one.norm() / two.norm()
            steps = cosine_similarity(mean / (one + EPSILON), mean / (two + EPSILON), 0)
            cosines = float(divisors), float(steps)
            found.append(Comparison(step, name, second[parameter], pair, *cosines, float(ratio), alignment))
    with torch.no_grad():
        for name, value in model.named_buffers():
            value.copy_(buffers[name])
    return found


def _on_batch(loss: Tensor, parameters: list[Tensor], number: int) -> tuple[list[Tensor], ...]:
    """Give g, H·1 and one draw of Gauss-Newton's diagonal of each parameter."""
    gauss_newton = gauss_newton_diagonal(loss, parameters, sign_key(0, number))
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    products = [
        torch.autograd.grad(gradient.sum(), parameter, retain_graph=True)[0]
        for parameter, gradient in zip(parameters, gradients, strict=True)
    ]
    assert all(each is not None for each in gauss_newton)
    return [g.detach() for g in gradients], products, [each for each in gauss_newton if each is not None]


def summary(found: Sequence[Comparison]) -> str:
    """Write the medians over the parameters of each role, with the least and the greatest, as a Markdown table."""
    moments = sorted({each.step for each in found})
    lines = []
    for role in dict.fromkeys(each.role for each in found):
        own = [each for each in found if each.role == role]
        count = str(len({each.parameter for each in own}))
        lines += [[role, count, *line] for line in _lines(own, moments)]
    return markdown(["", "parameters", "", *(f"step {step}" for step in moments)], lines) + "\n"


def _lines(found: Sequence[Comparison], moments: Sequence[int]) -> Iterator[list[str]]:
    measures: tuple[tuple[str, Callable[[Comparison], float]], ...] = (
        ("cosine of D", lambda each: each.divisors),
        ("cosine of steps", lambda each: each.steps),
        ("ratio of D", lambda each: each.ratio),
    )
    first = [each for each in found if each.pair == PAIRS[0]]
    yield ["H·1 and −g, cosine", *(_middle([e.alignment for e in first if e.step == m]) for m in moments)]
    for pair in PAIRS:
        for label, of in measures:
            cells = (_middle([of(e) for e in found if (e.pair, e.step) == (pair, m)]) for m in moments)
            yield [f"{pair[0]} and {pair[1]}, {label}", *cells]


def _middle(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
