"""One step of the optimizer: what the losses brought, the average that it refreshes, the groups that it moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.optim import optimizer as torchs

from sgdph_fx.optim.affine_blocks.averages import init_couplings, refresh_blocks
from sgdph_fx.optim.affine_blocks.step import BlockStep, active_pairs, members
from sgdph_fx.optim.batch_step import apply_step
from sgdph_fx.optim.batches import Present, batches, gather
from sgdph_fx.optim.device_step import DeviceNumbers, apply_step_where, deciding_device
from sgdph_fx.optim.group_step import (
    init_state,
    is_state_initialization,
    lacks_curvature,
    local_estimate,
    update_hessian_average,
)
from sgdph_fx.optim.hessian.estimate import HessianEstimate
from sgdph_fx.optim.hessian.estimating import from_gradient
from sgdph_fx.optim.hessian.finding import Finding
from sgdph_fx.optim.hessian.loss_checks import graph_errors_explained
from sgdph_fx.optim.members.validation import refuse_sparse_gradients
from sgdph_fx.optim.nonfinite import are_finite, nonfinite_on_device
from sgdph_fx.optim.processes.all_reduce import Agreed, agree, is_alone
from sgdph_fx.optim.processes.shards import local

__all__ = ["Stepping"]


class Stepping(Finding):
    """The arithmetic of a step, around the state of the optimizer."""

    def _take_step(self) -> None:
        layout, present = self._layout(), gather(self.param_groups)
        grads = present.grads
        if any(g.layout is not torch.strided for g in grads):
            refuse_sparse_gradients(self.param_groups)
        self._skipped.settle(self.param_groups, wait=False)
        if self._numbers is not None and not self.param_groups[0]["capturable"]:
            self._settle()  # from here on the host counts
            self._numbers = None
        t = self._steps_taken + 1
        if grads and self._estimate is None and is_state_initialization(self.param_groups, self.state):
            for rows in present.rows:
                init_state(rows.group, self.state, layout.schedule, rows.params)
            init_couplings(layout.schedule, self.param_groups, self.state)
            return
        # Pieces of a sharded parameter are asked for by the host, even where one rank has them all.
        alone = is_alone(self._process_group) and not layout.is_sharded
        decides = deciding_device(present.params, self.param_groups, alone=alone)
        taken = self._step_by_host(t, present) if decides is None else self._step_on(decides, t, present)
        self._estimate = None
        if taken:
            self._finish_step()

    def _finish_step(self) -> None:
        """Count the step, as the host does it, and a refresh that had no product."""
        t = self._steps_taken + 1
        lacking = [p for p in self._known_layout.schedule.due(t) if lacks_curvature(p, self.state)]
        if lacking:
            self._tell_of_missing_curvature(lacking[0], self._missing)
        self._missing = None
        for group in self.param_groups:
            group["step"] = t

    def _step_by_host(self, t: int, present: Present) -> bool:
        """The step where the host knows at once what is finite; whether it counts as one."""
        everywhere = self._agreed(t, present)
        if not everywhere.has_gradients:
            return False
        present = self._without_graphs(present)
        if everywhere.culprit:
            self._skipped.step(self.param_groups, everywhere.culprit)
            return False
        found = self._with_stand_ins(everywhere.found)
        self._skipped.watch("refreshes_skipped", self._refresh(found, None))
        self._skipped.settle(self.param_groups, wait=False)
        schedule = self._known_layout.schedule
        pairs = active_pairs(self.param_groups, self.state, schedule)
        for batch in batches(present, self.state, schedule, members(pairs)):
            apply_step(batch, self.state, schedule, t)
        BlockStep(self.param_groups, self.state, schedule, t).apply(pairs)
        return True

    def _step_on(self, device: torch.device, t: int, present: Present) -> bool:
        """The step where the device decides, and the host waits for nothing."""
        found = self._found_scaled(t, present)
        capturable = self.param_groups[0]["capturable"]
        present = self._without_graphs(present)
        self._write_where(found, t, present, self._numbers_on(device) if capturable else None)
        return True

    def _write_where(
        self, found: HessianEstimate, t: int, present: Present, numbers: DeviceNumbers | None
    ) -> None:
        """Refresh and move what losses and gradients allow, and count on the device what was skipped."""
        device = present.params[0].device  # that of all of them
        losses = [loss.to(device, non_blocking=True) for loss in found.losses]
        bad = nonfinite_on_device([*present.grads, *losses])
        refreshed = self._refresh(self._with_stand_ins(found), bad)
        step = t if numbers is None else numbers.counts[0] + 1
        apply_step_where(bad, present, self.state, self._known_layout.schedule, step, numbers)
        spoiled = None if refreshed is None else torch.logical_not(refreshed) * (1 - bad)
        if numbers is None:
            self._skipped.add_on_device(bad, spoiled)
        else:
            numbers.count(bad, spoiled)

    @torch.no_grad()
    def _step_recorded(self, scale: Tensor | None) -> bool:
        """What a step does on the device, after its backward pass; the host's counts are left to the caller.

        Args:
            scale: What the loss was multiplied by, and the gradients have been divided by.

        Returns:
            Whether it counts as one: without any gradient it does nothing.
        """
        present = gather(self.param_groups)
        if not present:
            return False
        found = self._found_here(self._steps_taken + 1, present).unscale(scale)
        self._estimate = None
        refuse_sparse_gradients(self.param_groups)
        self._write_where(found, self._steps_taken + 1, present, self._numbers)
        return True

    def _finish_recorded_step(self, counts: bool) -> None:
        """What torch does around :meth:`step` on the host, and a replay leaves out; gradients are gone by then."""
        if counts:
            self._finish_step()
        self._opt_called = True  # a scheduler looks here for a step before its own
        hooks = (*self._optimizer_step_post_hooks.values(), *torchs._global_optimizer_post_hooks.values())
        for hook in hooks:
            hook(self, (self,), {})

    def _make_capturable(self) -> None:
        for group in self.param_groups:
            group["capturable"] = True
        self.defaults["capturable"] = True

    def _make_state(self) -> None:
        """All state that steps are going to need, so that it lies where it is from the first step on."""
        schedule = self._layout().schedule
        for group in self.param_groups:
            init_state(group, self.state, schedule, [p for p in group["params"] if p.requires_grad])
        init_couplings(schedule, self.param_groups, self.state)

    def _device_tensors(self) -> tuple[Tensor, ...]:
        """What a recorded step reads and writes beside parameters and state."""
        return () if self._numbers is None else (self._numbers.counts, self._numbers.rates)

    def _numbers_on(self, device: torch.device) -> DeviceNumbers:
        """The numbers on the device, with the rates that the groups have now."""
        if self._numbers is None or not self._numbers.fits(self.param_groups, device):
            self._settle()  # what the device has counted goes into the new numbers
            self._numbers = DeviceNumbers.of(self.param_groups, device)
        self._numbers.update_rates(self.param_groups)
        return self._numbers

    def _agreed(self, t: int, present: Present) -> Agreed:
        """What this process found, or all of them together."""
        alone = is_alone(self._process_group)
        if alone and not present:
            return Agreed(HessianEstimate(), has_gradients=False)
        found = self._found_scaled(t, present)
        here = Agreed(found, bool(present), _culprit(found, present.grads))
        return here if alone else agree(here, self._device(), self._process_group)

    def _found_scaled(self, t: int, present: Present) -> HessianEstimate:
        """What this process found, without the scale that the gradients have lost already."""
        found = self._found_here(t, present)
        unseen = next(iter(found.parameters), None) if self._estimate is None else None
        return found.unscale(self._loss_scale.of(self, found.factors, unseen))

    def _found_here(self, t: int, present: Present) -> HessianEstimate:
        due, estimate = self._request(t), self._estimate
        if due is None:
            return HessianEstimate() if estimate is None else estimate
        if estimate is not None and estimate.is_of(due.parameters):
            return estimate
        if due.probe is not None and any(p.grad is not None for p in due.parameters):
            self._addresses.refuse_moved(present.params)
        unseen = [p for p in due.parameters if id(p) not in self._differentiated]
        with graph_errors_explained():
            found = from_gradient(due, present.grads, unseen)
        self._differentiated.update(id(p) for p in unseen if p.grad is not None)
        return found

    def _device(self) -> torch.device:
        params = (p for group in self.param_groups for p in group["params"])
        return next((local(p).device for p in params), torch.device("cpu"))

    def _without_graphs(self, present: Present) -> Present:
        """Take the graphs off all gradients: p → p.grad → graph → p is a circle that no collector sees."""
        if not any(g.requires_grad for g in present.grads):
            return present
        for parameter, gradient in zip(present.params, present.grads, strict=True):
            if gradient.requires_grad:
                parameter.grad = gradient.detach()
        return gather(self.param_groups)

    def _with_stand_ins(self, found: HessianEstimate) -> HessianEstimate:
        """The estimate to average: as it was found, or with \\|g\\| in place of a product that does not exist."""
        if found.missing is None:
            return found
        self._missing = found.missing
        self._mark_lacking(found.parameters)
        by_gradient = [p for p in found.parameters if self._group_of(p)["without_curvature"] == "gradient"]
        pairs = self._layout().schedule.pairs_among(by_gradient)
        return replace(found, parameters=tuple(by_gradient), hessians=(), by_gradient=True, pairs=pairs)

    def _refresh(self, found: HessianEstimate, bad: Tensor | None) -> Tensor | None:
        """Refresh the averages unless ``bad`` is 1; whether all estimates were finite, None where there is none."""
        allowed = None if bad is None or not found.parameters else bad == 0
        finite = refresh_blocks(found, self._group_of, self.state, allowed)
        coupled = members(found.pairs)
        for parameter, hessian in found.diagonals():
            if id(parameter) in coupled:
                continue
            estimate = local_estimate(parameter, hessian, by_gradient=found.by_gradient)
            if estimate is not None:
                group = self._group_of(parameter)
                one = update_hessian_average(parameter, estimate, group, self.state, allowed)
                finite = one if finite is None else finite & one.to(finite.device)
        return finite


def _culprit(found: HessianEstimate, grads: Sequence[Tensor]) -> str:
    """What is not finite; empty if nothing is."""
    if not are_finite(found.losses):
        return "The loss"
    return "" if are_finite(local(g) for g in grads if not g.is_meta) else "A gradient"
