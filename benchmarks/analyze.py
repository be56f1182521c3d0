"""Measure what reading a model costs, as ratios within one run: ``python -m benchmarks.analyze``.

There are three ratios, each with a bound that the project sets itself:

* without inputs, over torchvision: ``analyze`` ÷ ``torch.fx.symbolic_trace`` (median at most 1.0);
* with inputs: ``analyze`` ÷ the forward passes that it runs, one in each mode (median at most 1.25);
* growth: time per convolution in synthetic networks of 2,000 convolutions ÷ that in a small one (at most 1.5).

Candidates take turns on one thread. Processor time counts, and the fastest of several rounds, because other programs
may use the machine.
"""

from __future__ import annotations

import argparse
import inspect
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torchvision import models

from benchmarks.synthetic_networks import SHAPES
from sgdph_fx import analyze

__all__ = ["growth", "main", "recorded", "symbolic"]

# One of each family. All models would take an hour of forward passes.
FAMILIES = (
    "resnet18",
    "resnet50",
    "densenet121",
    "efficientnet_b0",
    "convnext_tiny",
    "vit_b_16",
    "swin_t",
    "squeezenet1_1",
    "mobilenet_v3_small",
    "googlenet",
    "vgg11",
    "regnet_y_400mf",
    "shufflenet_v2_x1_0",
)
CONVOLUTIONS_OF_RESNET18 = 20
CONVOLUTIONS = 2_000


def fastest(rounds: int, *candidates: Callable[[], object]) -> list[float]:
    """Measure the processor seconds of each candidate in its fastest round. The candidates take turns."""
    times: list[list[float]] = [[] for _ in candidates]
    for _ in range(rounds):
        for candidate, record in zip(candidates, times, strict=True):
            start = time.process_time()
            candidate()
            record.append(time.process_time() - start)
    return [min(record) for record in times]


def symbolic(rounds: int) -> Iterator[tuple[str, float, float]]:
    """Give name, milliseconds of torch.fx, and the ratio, for each torchvision model that torch.fx can trace."""
    for name in models.list_models(exclude="quantized_*"):
        model = _without_weights(name)
        try:
            fx.symbolic_trace(model)
        except Exception:
            continue
        plain, ours = fastest(rounds, partial(fx.symbolic_trace, model), partial(analyze, model))
        yield name, 1e3 * plain, ours / plain


def recorded(rounds: int, size: int) -> Iterator[tuple[str, float, float]]:
    """Give name, milliseconds of a forward pass in each mode, and the ratio, on two images of ``size`` by ``size``."""
    images = torch.rand(2, 3, size, size)
    for name in FAMILIES:
        model = models.get_model(name, weights=None, **_options(name))
        plain, ours = fastest(rounds, partial(_both_passes, model, images), partial(analyze, model, images))
        yield name, 1e3 * plain, ours / plain


def growth(rounds: int) -> Iterator[tuple[str, float, float]]:
    """Give shape and way of tracing, microseconds per convolution in the small network, and the large one's ratio.

    Without inputs the small network is ResNet-18. With inputs, where a network's width counts more than its length,
    it has the same shape as the large one, and as many convolutions as ResNet-18.
    """
    resnet = _without_weights("resnet18")
    image = torch.rand(2, 4, 4, 4)
    for shape, build in SHAPES.items():
        small, large = build(CONVOLUTIONS_OF_RESNET18), build(CONVOLUTIONS)
        for way, first, second in (
            ("symbolic", partial(analyze, resnet), partial(analyze, large)),
            ("recorded", partial(analyze, small, image), partial(analyze, large, image)),
        ):
            few, many = fastest(rounds, partial(_five_times, first), second)
            each = few / 5 / CONVOLUTIONS_OF_RESNET18
            yield f"{shape}, {way}", 1e6 * each, many / CONVOLUTIONS / each


def _five_times(run: Callable[[], object]) -> None:
    for _ in range(5):
        run()


def _without_weights(name: str) -> nn.Module:
    """Build a torchvision model with uninitialized weights: tracing reads none, and drawing them is slow."""
    build = partial(models.get_model, name, weights=None, **_options(name))
    try:
        with torch.device("meta"):
            model: nn.Module = build()
    except NotImplementedError:  # RegNet computes its widths with tensors
        drawn: nn.Module = build()
        return drawn
    model = model.to_empty(device="cpu")
    for buffer in model.buffers():
        buffer.zero_()
    return model


def _options(name: str) -> dict[str, Any]:
    """Give the options that keep a model from drawing weights slowly, or from downloading its backbone's."""
    if name in ("googlenet", "inception_v3"):
        return {"init_weights": False}
    builder = inspect.signature(models.get_model_builder(name))
    return {"weights_backbone": None} if "weights_backbone" in builder.parameters else {}


@torch.no_grad()
def _both_passes(model: nn.Module, images: Tensor) -> None:
    for training in (True, False):
        model.train(training)(images)


def _show(
    title: str, unit: str, rows: Iterator[tuple[str, float, float]], bound: float, verdict: str
) -> bool:
    print(f"\n{title}")
    ratios = []
    for name, base, ratio in rows:
        ratios.append(ratio)
        print(f"  {name:32s} {base:10.1f} {unit}   × {ratio:.2f}", flush=True)
    found = statistics.median(ratios) if verdict == "median" else max(ratios)
    kept = found <= bound
    print(f"  {verdict} of {len(ratios)}: {found:.2f}, at most {bound}: {'kept' if kept else 'MISSED'}")
    return kept


def main(arguments: Sequence[str] | None = None) -> int:
    """Print all ratios. The exit status is 1 if a bound is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.analyze", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("parts", nargs="*", default=[], help="symbolic, recorded, growth (default: all)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds; the fastest counts")
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    parts: dict[str, Callable[[], bool]] = {
        "symbolic": lambda: _show(
            "Without inputs, ÷ torch.fx.symbolic_trace", "ms", symbolic(options.rounds), 1.0, "median"
        ),
        "recorded": lambda: _show(
            "With inputs, ÷ the forward passes",
            "ms",
            recorded(max(options.rounds // 2, 2), options.size),
            1.25,
            "median",
        ),
        "growth": lambda: _show(
            f"Each of {CONVOLUTIONS:,} convolutions, ÷ each of {CONVOLUTIONS_OF_RESNET18}",
            "µs",
            growth(options.rounds),
            1.5,
            "largest",
        ),
    }
    kept = [parts[name]() for name in options.parts or parts]  # a list, so that all parts are shown
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
