"""A whole step without a read by the host: what may be written is decided, and counted, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sgdph_fx.curvature.precision import widest_float
from sgdph_fx.errors import OptimizerError
from sgdph_fx.optim.affine_blocks.step import BlockStep, active_pairs, members
from sgdph_fx.optim.batch_step import cycles_begun, rectified
from sgdph_fx.optim.batches import Present, batches
from sgdph_fx.optim.group_step import Group, State
from sgdph_fx.optim.masked_update import descend_where, sgd_where
from sgdph_fx.optim.schedule import Schedule
from sgdph_fx.optim.update import Coefficients
from sgdph_fx.optim.variants import VARIANTS

__all__ = ["DeviceNumbers", "apply_step_where", "deciding_device"]


@dataclass(slots=True, eq=False)
class DeviceNumbers:
    """What changes from step to step, on the device that the parameters are on.

    Args:
        counts: Steps taken, steps skipped and refreshes skipped, ``(3,)``, in the device's widest floats: so whole
            numbers add up exactly, and a step that was not taken, a float32, can be added to them.
        rates: τ and τ_SO of each group, ``(groups, 2)``, likewise.
        known: The rates that ``rates`` holds, as the host knows them.
        one: 1, float32, on the device.
        zero: 0, likewise.
    """

    counts: Tensor
    rates: Tensor
    known: list[tuple[float | None, float]]
    one: Tensor
    zero: Tensor

    @classmethod
    def of(cls, groups: Sequence[Group], device: torch.device) -> DeviceNumbers:
        """Those of the groups as they are."""
        precise = widest_float(device)
        counts = torch.zeros(3, dtype=precise, device=device)
        one = torch.ones((), dtype=torch.float32, device=device)
        rates = torch.zeros(len(groups), 2, dtype=precise, device=device)
        made = cls(counts, rates, [(None, float("nan"))] * len(groups), one, torch.zeros_like(one))
        for place, key in enumerate(("step", "steps_skipped", "refreshes_skipped")):
            counts[place].fill_(groups[0][key])
        return made

    def fits(self, groups: Sequence[Group], device: torch.device) -> bool:
        """Whether they were made for such groups, on that device."""
        return self.rates.device == device and len(self.known) == len(groups)

    def update_rates(self, groups: Sequence[Group]) -> None:
        """Write what a scheduler has changed; a rate that is on the device already is copied there."""
        for number, group in enumerate(groups):
            lr, second_order_lr = group["lr"], group["second_order_lr"]
            known_lr, known_second = self.known[number]
            if isinstance(lr, Tensor) and lr.device.type != "cpu":
                self.rates[number, 0].copy_(lr.reshape(()))
                self.known[number] = None, second_order_lr
            else:
                if float(lr) != known_lr:
                    self.rates[number, 0].fill_(float(lr))
                self.known[number] = float(lr), second_order_lr
            if second_order_lr != known_second:
                self.rates[number, 1].fill_(second_order_lr)

    def of_group(self, number: int) -> tuple[Tensor, Tensor]:
        """τ and τ_SO of one group."""
        return self.rates[number, 0], self.rates[number, 1]

    def count(self, bad: Tensor, spoiled: Tensor | None) -> None:
        """Count one more step; ``bad`` and ``spoiled`` are 1 where it, or its refresh, was skipped."""
        self.counts.add_(torch.stack([self.one, bad, self.zero if spoiled is None else spoiled]))

    def write_into(self, groups: Sequence[Group]) -> tuple[int, int]:
        """Bring the groups' counts up to date; the host waits for the device.

        Returns:
            How many steps and refreshes have been skipped since the last time.
        """
        step, *skipped = map(int, self.counts.tolist())
        before = groups[0]["steps_skipped"], groups[0]["refreshes_skipped"]
        for group in groups:
            group["step"], group["steps_skipped"], group["refreshes_skipped"] = step, *skipped
        return skipped[0] - before[0], skipped[1] - before[1]


def deciding_device(
    present: Sequence[Tensor], groups: Sequence[Group], *, alone: bool
) -> torch.device | None:
    """The device that decides whether a step is taken; None if the host does.

    The host does where it can read at once, on a CPU, and where it has to, with several processes or devices.

    Args:
        present: The parameters that have a gradient.
        groups: All groups.
        alone: Whether no other process takes part.

    Raises:
        OptimizerError: if the groups are ``capturable``, and the host would have to.
    """
    devices = {parameter.device for parameter in present}
    if groups[0]["capturable"] and present and not (alone and len(devices) == 1):
        raise OptimizerError(
            f"capturable=True works in one process and on one device; this step has {len(devices)} devices"
            f"{'' if alone else ' and several processes'}. Leave it out: several of them have to read what each found."
        )
    if not alone or len(devices) != 1:
        return None
    (device,) = devices
    return device if groups[0]["capturable"] or device.type not in ("cpu", "meta") else None


def apply_step_where(
    bad: Tensor,
    present: Present,
    state: State,
    schedule: Schedule,
    t: Any,
    numbers: DeviceNumbers | None,
) -> None:
    """Take step t with every parameter that has a gradient, unless ``bad`` is 1.

    Args:
        bad: One float32 on the device.
        present: The parameters.
        state: Of all parameters.
        schedule: The Hessian cycle.
        t: The step, counted from 1; an int, or a tensor of one float64.
        numbers: The rates on the device; None if the host's are to be used.
    """
    groups = [rows.group for rows in present.rows]
    pairs = active_pairs(groups, state, schedule)
    for batch in batches(present, state, schedule, members(pairs)):
        group = batch.group
        variant = VARIANTS[group["variant"]]
        rates = None if numbers is None else numbers.of_group(batch.number)
        owns = [state[p] for p in batch.params]
        if batch.missed is None and variant.decay_first_order_gradient:
            momenta = _momenta(batch.params, owns) if group["momentum"] != 0 else []
            sgd_where(bad, batch.params, batch.grads, momenta, group, rates[0] if rates else group["lr"])
            continue
        begun = cycles_begun(batch, schedule, t)
        averages = None if batch.missed is None else rectified(batch.params, group, state)
        c = Coefficients.of(group, variant, begun, rates)
        descend_where(bad, batch.params, batch.grads, _momenta(batch.params, owns), averages, c)
    if pairs:
        rates_of = None if numbers is None else numbers.of_group
        BlockStep(groups, state, schedule, t, bad == 0, rates_of).apply(pairs)


def _momenta(params: Sequence[Tensor], owns: Sequence[dict[str, Any]]) -> list[Tensor]:
    """M^G of each; zeros where it has yet to start, which weigh nothing in the first average."""
    for parameter, own in zip(params, owns, strict=True):
        if own.get("momentum_buffer") is None:
            own["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)
    return [own["momentum_buffer"] for own in owns]
