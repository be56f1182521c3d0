"""One step of the optimizer: what the losses brought, the average that it refreshes, the groups that it moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from sgdph_fx.curvature.probes import PROBES
from sgdph_fx.optim.all_reduce import Agreed, agree, is_alone
from sgdph_fx.optim.estimators import GRADIENT
from sgdph_fx.optim.group_step import (
    LACKS_CURVATURE,
    Group,
    apply_step,
    init_state,
    is_state_initialization,
    lacks_curvature,
    update_hessian_average,
)
from sgdph_fx.optim.hessian_estimate import HessianEstimate, HessianRequest, from_gradient
from sgdph_fx.optim.loss_checks import graph_errors_explained
from sgdph_fx.optim.nonfinite import are_finite
from sgdph_fx.optim.reporting import Reporting
from sgdph_fx.optim.shards import local
from sgdph_fx.optim.validation import refuse_sparse_gradients

__all__ = ["Stepping"]


class Stepping(Reporting):
    """The arithmetic of a step, around the state of the optimizer."""

    @property
    def due(self) -> Tensor | None:
        """The parameter whose Hessian the next step needs a product for; None where it needs none."""
        request = self._request(self._steps_taken + 1)
        return None if request is None or request.probe is None else request.parameter

    def _request(self, t: int, module: nn.Module | None = None) -> HessianRequest | None:
        """What step t refreshes, and how; None where it refreshes nothing."""
        layout = self._layout()
        parameter = layout.schedule.due(t)
        if parameter is None:
            return None
        group = self._group_of(parameter)
        fallback, lacking = group["without_curvature"], lacks_curvature(parameter, self.state)
        if lacking and fallback == "first-order":
            return None
        by_gradient = group["probe"] == GRADIENT or (lacking and fallback == "gradient")
        return HessianRequest(
            parameter,
            layout.name(parameter, self.param_groups),
            None if by_gradient else PROBES[group["probe"]],
            group["seed"],
            t,
            fallback == "raise",
            module,
        )

    def _group_of(self, parameter: Tensor) -> Group:
        number, _ = self._layout().places[id(parameter)]
        return self.param_groups[number]

    def _present(self) -> list[Tensor]:
        """The parameters that have a gradient."""
        return [p for group in self.param_groups for p in group["params"] if p.grad is not None]

    def _has_gradients(self) -> bool:
        return any(p.grad is not None for group in self.param_groups for p in group["params"])

    def scale_gradients(self, factor: float | Tensor) -> None:
        """Multiply the gradients by one number, and the Hessian that was found with them.

        For loops that sum losses and divide the gradients at the end, by a number of tokens that they know only then.

        Args:
            factor: The number.
        """
        for parameter in self._present():
            if parameter.grad is not None and parameter.grad.requires_grad:
                with torch.enable_grad():
                    parameter.grad = parameter.grad * factor
            elif parameter.grad is not None:
                parameter.grad.mul_(factor)
        if self._pending is not None and self._pending.hessian is not None:
            self._pending = replace(self._pending, hessian=self._pending.hessian * factor)

    def _take_step(self) -> None:
        refuse_sparse_gradients(self.param_groups)
        self._skipped.settle(self.param_groups, wait=True)
        t, schedule, present = self._steps_taken + 1, self._layout().schedule, self._present()
        if present and self._pending is None and is_state_initialization(self.param_groups, self.state):
            for group in self.param_groups:
                init_state(group, self.state, schedule)
            return
        everywhere = self._agreed(t, present)
        self._pending = None
        if not everywhere.has_gradients:
            return
        _release_graphs(present)
        if everywhere.culprit:
            self._skipped.step(self.param_groups, everywhere.culprit)
            return
        self._refresh(everywhere.found, t)
        for group in self.param_groups:
            apply_step(group, self.state, schedule, t)
            group["step"] = t
        self._skipped.settle(self.param_groups, wait=False)

    def _agreed(self, t: int, present: Sequence[Tensor]) -> Agreed:
        """What this process found, or all of them together."""
        alone = is_alone(self._process_group)
        if alone and not present:
            return Agreed(HessianEstimate(None), has_gradients=False)
        found = self._found_here(t, present)
        unseen = found.parameter if self._pending is None else None
        found = found.unscale(self._loss_scale.of(self, found.factors, unseen))
        here = Agreed(found, bool(present), _culprit(found, present))
        return here if alone else agree(here, self._device(), self._process_group)

    def _found_here(self, t: int, present: Sequence[Tensor]) -> HessianEstimate:
        due, pending = self._request(t), self._pending
        if due is None:
            return HessianEstimate(None) if pending is None else pending
        if pending is not None and pending.parameter is due.parameter:
            return pending
        if due.probe is not None and due.parameter.grad is not None:
            self._addresses.refuse_moved(present)
        with graph_errors_explained():
            return from_gradient(due, [p.grad for p in present])

    def _device(self) -> torch.device:
        params = (p for group in self.param_groups for p in group["params"])
        return next((local(p).device for p in params), torch.device("cpu"))

    def _refresh(self, found: HessianEstimate, t: int) -> None:
        """Bring M^H of the due parameter up to date, by the product or by what stands in for it."""
        parameter = self._layout().schedule.due(t)
        if found.missing is not None and found.parameter is not None:
            self.state[found.parameter][LACKS_CURVATURE] = True
            by_gradient = self._group_of(found.parameter)["without_curvature"] == "gradient"
            found = replace(found, hessian=None, by_gradient=by_gradient)
        if parameter is not None and lacks_curvature(parameter, self.state):
            self._tell_of_missing_curvature(parameter, found.missing)
        if found.parameter is not None:
            group = self._group_of(found.parameter)
            self._skipped.watch("refreshes_skipped", update_hessian_average(found, group, self.state))


def _release_graphs(params: Sequence[Tensor]) -> None:
    """Take the graphs off all gradients: p → p.grad → graph → p is a circle that no collector sees."""
    for parameter in params:
        if parameter.grad is not None and parameter.grad.requires_grad:
            parameter.grad = parameter.grad.detach()


def _culprit(found: HessianEstimate, present: Sequence[Tensor]) -> str:
    """What is not finite; empty if nothing is."""
    if not found.is_finite:
        return "The loss"
    numbers = [local(p.grad) for p in present if p.grad is not None and not p.grad.is_meta]
    return "" if are_finite(numbers) else "A gradient"
