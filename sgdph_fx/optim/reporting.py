"""What an optimizer says of itself: a short text, names and numbers for logs, and warnings about its Hessians."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sgdph_fx.errors import NoCurvatureError, printable
from sgdph_fx.optim.group_step import lacks_curvature, takes_newton_steps
from sgdph_fx.optim.hessian.estimators import GAUSS_NEWTON
from sgdph_fx.optim.members.membership import Membership
from sgdph_fx.optim.processes.shards import is_sharded, local
from sgdph_fx.optim.wording import warn

__all__ = ["Reporting"]

_SHOWN = ("lr", "weight_decay")
_STANDS_IN = {
    "first-order": "it steps as a first-order parameter from now on",
    "gradient": "|g| stands in for it from now on",
    "raise": "its average stays as it is",
}


class Reporting(Membership):
    """An optimizer that can be printed and logged."""

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__}("]
        for number, group in enumerate(self.param_groups):
            count = len(group["params"])
            what = group.get("name") or group.get("role") or f"order {group['order']}"
            numbers = ", ".join(f"{key} {_plain(group[key])}" for key in _SHOWN)
            noun = "parameter" if count == 1 else "parameters"
            lines.append(f"  ({number}) {what}: {count:,} {noun}, {numbers}")
        length = self._layout().schedule.length
        due = f"; due: {self.due_name}" if self.due_name else ""
        lines.append(f"  step {self._steps_taken:,}, a Hessian cycle of {length:,} steps{due}")
        return printable("\n".join([*lines, ")"]))

    @property
    def due(self) -> Tensor | None:
        """The parameter whose curvature the next step needs; the first where it needs all, None where it needs none."""
        raise NotImplementedError

    @property
    def due_name(self) -> str | None:
        """The name of :attr:`due`: its own where the groups have ``param_names``, else its place in them."""
        due = self.due
        return None if due is None else self._layout().name(due, self.param_groups)

    @property
    def parameters_without_curvature(self) -> tuple[str, ...]:
        """Names of the parameters that were found to lie below an operation without a second derivative."""
        layout = self._layout()
        found = (p for p in layout.schedule.cycle if lacks_curvature(p, self.state))
        return tuple(layout.name(p, self.param_groups) for p in found)

    def statistics(self) -> dict[str, Any]:
        """Numbers and names to log, as a flat dict of plain values.

        Returns:
            ``step``; ``cycle``, how many Hessian cycles have begun, and ``cycle_length`` in steps; ``due``, the name
            of the parameter that is due next or None; ``steps_skipped``, ``refreshes_skipped``,
            ``curvature_missed`` and ``products_given_up``; and for each second-order parameter with an average,
            ``hessian_average/NAME``, the mean of its M^H. The host waits once for the device that holds them.
        """
        layout, first = self._layout(), self.param_groups[0]
        schedule, t = layout.schedule, self._steps_taken
        begun = 0
        if schedule.cycle and t:
            begun = schedule.cycle_of(t, first["cycle_start"], first["cycles_before"])
        found: dict[str, Any] = {
            "step": t,
            "cycle": begun,
            "cycle_length": schedule.length,
            "due": self.due_name,
            "steps_skipped": self.steps_skipped,
            "refreshes_skipped": self.refreshes_skipped,
            "curvature_missed": self.curvature_missed,
            "products_given_up": self.products_given_up,
        }
        return {**found, **self._mean_averages()}

    def _mean_averages(self) -> dict[str, float]:
        layout = self._layout()
        averages = {
            layout.name(p, self.param_groups): local(self.state[p]["hessian_average"])
            for p in layout.schedule.cycle
            if p in self.state and "hessian_average" in self.state[p] and not p.is_meta and p.numel()
        }
        means: dict[torch.device, list[tuple[str, Tensor]]] = {}
        for name, average in averages.items():
            means.setdefault(average.device, []).append((name, average.mean(dtype=torch.float32)))
        return {
            f"hessian_average/{name}": number
            for rows in means.values()
            for (name, _), number in zip(rows, torch.stack([mean for _, mean in rows]).tolist(), strict=True)
        }

    def _tell_of_missing_curvature(self, parameter: Tensor, why: NoCurvatureError | None) -> None:
        """Count a refresh without a product, and warn of the first, and of there being no Hessian at all."""
        layout, groups = self._layout(), self.param_groups
        number, _ = layout.places[id(parameter)]
        fallback = groups[number]["without_curvature"]
        what = "Gauss-Newton matrix" if groups[number]["curvature"] == GAUSS_NEWTON else "Hessian"
        told = (
            f"Parameter {layout.name(parameter, groups)!r} has no {what}, so {_STANDS_IN[fallback]} "
            f"(without_curvature={fallback!r}). {why or 'It was saved with this mark.'} More of them are counted in "
            "`optimizer.curvature_missed`, named in `optimizer.parameters_without_curvature`, and not told again."
        )
        self._skipped.count("curvature_missed", groups, told)
        if why is None or fallback != "first-order" or self._has_newton_steps():
            return
        warn(
            "No second-order parameter of this optimizer has a Hessian any more, so it trains plain SGD with momentum. "
            'Use an implementation with a second derivative, or without_curvature="gradient".'
        )

    def _has_newton_steps(self) -> bool:
        schedule = self._layout().schedule
        return any(
            takes_newton_steps(p, group, self.state, schedule)
            for group in self.param_groups
            for p in group["params"]
        )


def _plain(value: Any) -> str:
    return f"{float(value):g}" if not is_sharded(value) else str(value)
