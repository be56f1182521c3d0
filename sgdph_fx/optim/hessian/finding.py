"""What a loss brings: its gradients, and the Hessian that is due, kept until the step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo

from sgdph_fx.curvature import capturing
from sgdph_fx.curvature.autograd_graph import Order, producers_first
from sgdph_fx.curvature.probes import PROBES
from sgdph_fx.errors import CaptureError, NoCurvatureError
from sgdph_fx.optim.batches import gather
from sgdph_fx.optim.group_step import LACKS_CURVATURE, Group, lacks_curvature
from sgdph_fx.optim.hessian.estimating import from_loss
from sgdph_fx.optim.hessian.estimators import GRADIENT
from sgdph_fx.optim.hessian.loss_checks import graph_errors_explained
from sgdph_fx.optim.hessian.request import HessianRequest
from sgdph_fx.optim.processes.all_reduce import rank
from sgdph_fx.optim.reporting import Reporting
from sgdph_fx.optim.scaling import multipliers

__all__ = ["Finding", "refuse_repeated_draws"]


class Finding(Reporting):
    """An optimizer that knows which Hessian is due, and finds it."""

    @property
    def due(self) -> Tensor | None:
        """The parameter whose Hessian the next step needs a product for; None where it needs none.

        With ``refresh="all"`` it is the first of those that the next step refreshes.
        """
        request = self._request(self._steps_taken + 1)
        return None if request is None or request.probe is None else request.parameter

    def _request(self, t: int, module: nn.Module | None = None) -> HessianRequest | None:
        """What step t refreshes, and how; None where it refreshes nothing."""
        layout = self._layout()
        due = [p for p in layout.schedule.due(t) if not self._is_given_up(p)]
        if not due:
            return None
        groups = [self._group_of(p) for p in due]
        lacking = all(lacks_curvature(p, self.state) for p in due)
        fallbacks = {group["without_curvature"] for group in groups}
        by_gradient = groups[0]["probe"] == GRADIENT or (lacking and "gradient" in fallbacks)
        return HessianRequest(
            tuple(due),
            tuple(layout.name(p, self.param_groups) for p in due),
            None if by_gradient else PROBES[groups[0]["probe"]],
            groups[0]["seed"],
            t,
            "raise" in fallbacks,
            tuple(group["maximize"] for group in groups),
            module,
            groups[0]["curvature"],
            layout.schedule.pairs_among(due),
        )

    def _is_given_up(self, parameter: Tensor) -> bool:
        """Whether it lacks curvature, and steps as a first-order parameter for that."""
        fallback = self._group_of(parameter)["without_curvature"]
        return fallback == "first-order" and lacks_curvature(parameter, self.state)

    def _walked(self, loss: Tensor, due: HessianRequest | None) -> Order | None:
        """All operations of the loss, where a product needs them; the loss must reach a parameter of ours."""
        order = None if due is None or due.probe is None else producers_first(loss)
        if not self._layout().is_sharded:  # else the graph knows the gathered parameters, not their pieces
            self._unowned.check(loss, self._layout(), order)
        return order

    def _find(
        self,
        loss: Tensor,
        due: HessianRequest | None,
        hessian_loss: Callable[[], Tensor] | None = None,
        *,
        retain_graph: bool = False,
        order: Order | None = None,
    ) -> None:
        """The gradients of the loss, and what is due, added to what earlier losses of this step brought."""
        # A sum goes on only as long as the gradients that it belongs to; `fully_shard` may hold them back.
        if self._estimate is not None and not self._layout().is_sharded and self._dropped_gradients():
            self._estimate = None
        if due is not None and due.is_gauss_newton:
            due = replace(due, draw=self._draw())
        factors = multipliers(loss)
        with graph_errors_explained():
            try:
                found = from_loss(
                    loss,
                    due,
                    hessian_loss,
                    retain_graph=retain_graph,
                    order=order,
                    on_give_up=self._count_given_up,
                )
            except NoCurvatureError:
                if due is not None and not due.required:
                    self._mark_lacking(due.parameters)
                raise
        self._estimate = replace(found, factors=factors).accumulate(self._estimate)
        self._witness = _state_of(self._gradients())

    def _draw(self) -> tuple[int, int]:
        """This process, and how many losses of this step it has had before."""
        before = 0 if self._estimate is None else len(self._estimate.losses)
        return rank(self._process_group), before

    def _count_given_up(self, reason: str = "", times: int = 1) -> None:
        """Count a product that torch's double backward takes: it is right and slower, so nothing is told."""
        for group in self.param_groups:
            group["products_given_up"] += times

    def _mark_lacking(self, parameters: Iterable[Tensor]) -> None:
        for parameter in parameters:
            self.state[parameter][LACKS_CURVATURE] = True

    def _group_of(self, parameter: Tensor) -> Group:
        number, _ = self._known_layout.places[id(parameter)]
        return self.param_groups[number]

    def _dropped_gradients(self) -> bool:
        """Whether the gradients of this step's earlier losses are gone, or zeros by a write since the last of them."""
        gradients = self._gradients()
        if not gradients:
            return True
        if _state_of(gradients) == self._witness:  # so that a device is not waited for
            return False
        return not any(bool(g.any()) for g in gradients)

    def _gradients(self) -> list[Tensor]:
        return gather(self.param_groups).grads

    @_disable_dynamo
    def scale_gradients(self, factor: float | Tensor) -> None:
        """Multiply the gradients by one number, and the Hessian that was found with them.

        For loops that sum losses and divide the gradients at the end, by a number of tokens that they know only then.

        Args:
            factor: The number.
        """
        for parameter in gather(self.param_groups).params:
            if parameter.grad is not None and parameter.grad.requires_grad:
                with torch.enable_grad():
                    parameter.grad = parameter.grad * factor
            elif parameter.grad is not None:
                parameter.grad.mul_(factor)
        if self._estimate is not None:
            self._estimate = self._estimate.changed(lambda hessian: hessian * factor)


def _state_of(gradients: Sequence[Tensor]) -> tuple[int, int] | None:
    """The first of them and how often it was written, which changes when ``zero_grad`` fills all with zeros."""
    return (id(gradients[0]), gradients[0]._version) if gradients else None


def refuse_repeated_draws(due: HessianRequest | None) -> None:
    """Refuse to draw random signs while the step is captured: each replay would use the same.

    Raises:
        CaptureError: if a CUDA graph is being captured.
    """
    if due is None or not due.draws_signs:
        return
    if capturing.is_capturing():
        raise CaptureError(
            "Random signs (`probe`) are drawn on the host, and each replay of this graph would use the same. "
            "`sgdph_fx.CapturedStep` draws them anew; or use a probe without random signs."
        )
