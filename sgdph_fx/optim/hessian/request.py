"""What a step asks of the backward pass: whose diagonals, of which matrix, and how it is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sgdph_fx.curvature.probes import Probe, generator_at
from sgdph_fx.curvature.random_signs import sign_key
from sgdph_fx.optim.hessian.estimators import GAUSS_NEWTON
from sgdph_fx.optim.processes.shards import whole
from sgdph_fx.optim.schedule import Pair

__all__ = ["HessianRequest"]


@dataclass(frozen=True, slots=True)
class HessianRequest:
    """The parameters whose averages a step refreshes, and how their Hessian is to be found.

    Args:
        parameters: Those that are due: one, a pair, or all of them.
        names: Their names in the optimizer.
        probe: The probe; None where the gradient stands in, and no product is taken.
        seed: Decides a random probe's draws, together with the step.
        t: The step, counted from 1.
        required: Whether a missing second derivative is an error.
        maximized: For each parameter whether it climbs. What it descends is -loss, so its matrix is that of -loss.
        module: What knows a sharded parameter whole.
        curvature: Of which matrix the diagonal is, ``"hessian"`` or ``"gauss-newton"``.
        pairs: Which of them are scale and shift of the same channels, to be coupled.
        draw: Process and micro-batch, each of which draws signs of its own for the Gauss-Newton matrix.
        key: Decides the signs of the Gauss-Newton matrix, where it lies on the device; None for the step's own.
    """

    parameters: tuple[Tensor, ...]
    names: tuple[str, ...]
    probe: Probe | None
    seed: int
    t: int
    required: bool
    maximized: tuple[bool, ...]
    module: nn.Module | None = None
    curvature: str = "hessian"
    pairs: tuple[Pair, ...] = ()
    draw: tuple[int, int] = (0, 0)
    key: Tensor | None = None

    @property
    def parameter(self) -> Tensor:
        """The first of them."""
        return self.parameters[0]

    @property
    def told(self) -> str:
        """The parameters, for messages."""
        others = len(self.names) - 1
        return f"{self.names[0]!r}" + (f" and of {others} more" if others else "")

    @property
    def turned(self) -> tuple[bool, ...]:
        """For each parameter and then for each pair, whether it is the matrix of -loss that counts."""
        climbs = {id(p): climbs for p, climbs in zip(self.parameters, self.maximized, strict=True)}
        return (*self.maximized, *(climbs[id(pair.scale)] for pair in self.pairs))

    @property
    def is_gauss_newton(self) -> bool:
        """Whether the Gauss-Newton matrix is asked for, and no gradient stands in for it."""
        return self.probe is not None and self.curvature == GAUSS_NEWTON

    @property
    def draws_signs(self) -> bool:
        """Whether random signs take part."""
        return self.probe is not None and self.probe.averaged_signed

    @property
    def sign_key(self) -> Tensor:
        """What decides the signs of the Gauss-Newton matrix."""
        return sign_key(self.seed, self.t, *self.draw) if self.key is None else self.key

    @property
    def generator(self) -> torch.Generator:
        """The source of the step's draws."""
        return generator_at(self.seed, self.t)

    @contextmanager
    def leaves(self) -> Iterator[list[Tensor]]:
        """The parameters as a loss was just computed with them; within, its graph may be differentiated."""
        with whole(self.parameters, self.names, self.module) as leaves:
            yield leaves
