"""Random ways from one convolution to norms, through reshapes of all kinds, and what they turned out to be.

A network is a list of steps, each drawn so that it fits the shape that the steps before left. The numerical oracle
says whether a gain and a bias cancel; :func:`outcome` holds the plan against it. A thousand of them::

    python -m tests.properties.reshaped --networks 1000
"""

from __future__ import annotations

import argparse
import copy
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sgdph_fx import Config, analyze
from tests.properties.reshapes import norms_for, steps_for
from tests.zoo.oracle import absorbs

__all__ = ["Network", "Outcome", "draw", "outcome"]

Step = Callable[[Tensor], Tensor]


class Network(nn.Module):
    """``conv``, the steps on its output, and a norm for each tensor that is left."""

    def __init__(self, conv: nn.Module, steps: list[tuple[str, Step]], norms: list[nn.Module]) -> None:
        super().__init__()
        self.conv = conv
        self.steps = steps
        self.norms = nn.ModuleList(norms)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        for _, step in self.steps:
            y = step(y)
        out: Tensor = self.norms[0](y)
        return out

    def __str__(self) -> str:
        names = [name for name, _ in self.steps]
        return f"{self.conv} → {' → '.join(names) or 'nothing'} → {self.norms[0]}"


@dataclass(frozen=True)
class Outcome:
    """What the plan says and what is so: whether a gain is absorbed, and whether the bias changes nothing."""

    said: bool
    so: bool
    hinted: bool
    idle: bool

    @property
    def word(self) -> str:
        """``unsound``, ``false hint``, ``cautious`` or ``right``."""
        if self.said and not self.so:
            return "unsound"
        if self.hinted and not self.idle:
            return "false hint"
        return "cautious" if self.so and not self.said else "right"


def draw(seed: int) -> tuple[Network, Tensor]:
    """A network and an input for it; the same for the same seed. Its last norm has at least 4 numbers a statistic."""
    choose = random.Random(seed)
    torch.manual_seed(seed)
    while True:
        network, x = _attempt(choose)
        if network is not None:
            return network, x


def _attempt(choose: random.Random) -> tuple[Network | None, Tensor]:
    dims = choose.choice((1, 2, 2))
    x = torch.randn(
        choose.choice((2, 3, 4)), 4, *[choose.choice((4, 6)) for _ in range(dims)], dtype=torch.float64
    )
    conv = _convolution(choose, dims).double()
    y = conv(x).detach()
    steps: list[tuple[str, Step]] = []
    for _ in range(choose.choice((0, 1, 2, 2, 3, 3, 4, 5))):
        name, step = choose.choice(list(steps_for(y, choose)))
        y = step(y)
        steps.append((name, step))
    possible = list(norms_for(y))
    if not possible or y.numel() > 20000:
        return None, x
    return Network(conv, steps, [choose.choice(possible)]).double(), x


def _convolution(choose: random.Random, dims: int) -> nn.Module:
    transposed = choose.random() < 0.2
    kind = getattr(nn, f"Conv{'Transpose' if transposed else ''}{dims}d")
    groups = choose.choice((1, 1, 1, 2))
    out = choose.choice((2, 4, 6, 8) if groups == 2 else (1, 2, 3, 4, 6, 8))
    module: nn.Module = kind(4, out, 3, padding=1, groups=groups)
    return module


@torch.no_grad()
def outcome(network: Network, x: Tensor, inputs: Tensor | None) -> Outcome:
    """Hold the plan under ``absorbing``, made with ``inputs`` or without any, against numbers."""
    plan = analyze(network, inputs, config=Config("absorbing"))
    (entry,) = plan.convolutions
    hinted = any(hint.code == "absorbed-bias" for hint in plan.hints)
    return Outcome(
        entry.verdict == "normalized",
        absorbs(network, "conv", (x,), tolerance=1e-7),
        hinted,
        hinted and _bias_is_idle(network, x),
    )


def _bias_is_idle(network: Network, x: Tensor) -> bool:
    shifted = copy.deepcopy(network).train()
    before = copy.deepcopy(network).train()(x)
    shifted.conv.bias += torch.randn(shifted.conv.bias.shape, dtype=torch.float64)
    return bool((shifted(x) - before).abs().max() <= 1e-6 * before.abs().max())


def _outcomes(seeds: range) -> Iterator[tuple[str, Outcome, str]]:
    for seed in seeds:
        network, x = draw(seed)
        for way, inputs in (("recorded", x), ("symbolic", None)):
            yield way, outcome(network, x, inputs), f"seed {seed}: {network}"


def main() -> None:
    """Count the outcomes, and print each network that is told wrong."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--networks", type=int, default=1000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--show", default="unsound", help="print networks with this outcome, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    for way, found, what in _outcomes(range(options.first_seed, options.first_seed + options.networks)):
        counts[f"{way}: {found.word}"] += 1
        counts[f"{way}: called normalized"] += found.said
        counts[f"{way}: absorbed-bias hints"] += found.hinted
        if found.word in ("unsound", "false hint", options.show):
            print(f"{way}, {found.word}, {what}")
    print("\n".join(f"{what}: {number}" for what, number in sorted(counts.items())))


if __name__ == "__main__":
    main()
