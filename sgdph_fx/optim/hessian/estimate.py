"""What the losses of one step have brought: the Hessian that is due, and the losses themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import is_

from torch import Tensor

from sgdph_fx.errors import NoCurvatureError
from sgdph_fx.optim.schedule import Pair

__all__ = ["HessianEstimate"]


@dataclass(frozen=True, slots=True, eq=False)
class HessianEstimate:
    """What the losses of one step have brought.

    Args:
        parameters: The parameters that were due; none where the step refreshes no average.
        hessians: For each the diagonal of its block by the probe, of its shape, dtype and device, without graph; None
            where the loss does not use the parameter, or no product was taken. Then for each pair the entries that
            couple the two; None where the loss does not use both. Empty for None throughout.
        losses: Each loss, in memory of its own, without graph.
        factors: What the losses were multiplied by last, see :func:`sgdph_fx.optim.scaling.multipliers`.
        by_gradient: Whether \\|g\\| is to stand in for the Hessian at the step.
        missing: Why there is no product, if an operation has no second derivative.
        pairs: Which of the parameters are scale and shift of the same channels.
    """

    parameters: tuple[Tensor, ...] = ()
    hessians: tuple[Tensor | None, ...] = ()
    losses: tuple[Tensor, ...] = ()
    factors: tuple[Tensor, ...] = ()
    by_gradient: bool = False
    missing: NoCurvatureError | None = None
    pairs: tuple[Pair, ...] = ()

    @property
    def shapes(self) -> list[Tensor]:
        """For each of :attr:`entries` a parameter of its shape."""
        return [*self.parameters, *(pair.shift for pair in self.pairs)]

    @property
    def entries(self) -> tuple[Tensor | None, ...]:
        """What was found, with None for what was not: for each parameter and then for each pair."""
        return self.hessians or (None,) * (len(self.parameters) + len(self.pairs))

    def diagonals(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Each parameter with its diagonal."""
        return zip(self.parameters, self.entries, strict=False)

    def couplings(self) -> Iterator[tuple[Pair, Tensor | None]]:
        """Each pair with what couples the two."""
        return zip(self.pairs, self.entries[len(self.parameters) :], strict=True)

    def is_of(self, parameters: Sequence[Tensor]) -> bool:
        """Whether these very parameters were due."""
        return len(self.parameters) == len(parameters) and all(map(is_, self.parameters, parameters))

    def accumulate(self, other: HessianEstimate | None) -> HessianEstimate:
        """The sum over two micro-batches; the Hessian is linear in their losses."""
        if other is None:
            return self
        same = other.is_of(self.parameters)
        hessians = self.hessians
        if same:
            hessians = tuple(map(_sum, self.entries, other.entries))
        return HessianEstimate(
            self.parameters,
            hessians,
            self.losses + other.losses,
            self.factors + other.factors,
            self.by_gradient or (same and other.by_gradient),
            self.missing or (other.missing if same else None),
            self.pairs,
        )

    def unscale(self, scale: Tensor | None) -> HessianEstimate:
        """That of a loss that was multiplied by ``scale``, one number."""
        if scale is None:
            return self
        return self.changed(lambda h: (h / scale.to(h.device, non_blocking=True)).to(h.dtype))

    def changed(self, change: Callable[[Tensor], Tensor]) -> HessianEstimate:
        """With every diagonal that there is changed."""
        return replace(self, hessians=tuple(None if h is None else change(h) for h in self.hessians))


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second
