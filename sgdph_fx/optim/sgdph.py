"""The optimizer: SGD for most parameters, Newton-type steps for the channel-wise ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from sgdph_fx.curvature.probes import ProbeName
from sgdph_fx.optim.groups import move, take_in
from sgdph_fx.optim.pending import Due, Pending, from_gradient, from_loss, release_graphs
from sgdph_fx.optim.schedule import Schedule
from sgdph_fx.optim.validation import (
    check_group,
    check_hyperparameters,
    check_is_group,
    check_loss,
    check_reached,
    check_saved_groups,
    refuse_sparse_gradients,
)
from sgdph_fx.optim.variants import VARIANTS, VariantName

__all__ = ["SGDPH"]


class SGDPH(Optimizer):
    r"""SGD with Partial Hessian, Algorithm 1 of Sun, Yong and Zhang, arXiv:2403.02681.

    Groups with ``order`` 2, the channel-wise parameters, take Newton-type steps; groups with ``order`` 1,
    or that do not say, take SGD's steps with momentum. At every step, with :math:`g` the gradient,

    .. math::
        \tilde H &= \sqrt{(H v)^2 + \epsilon} & (4) \\
        M^H &\leftarrow (1-\alpha)\, M^H + \alpha\, \tilde H & (5) \\
        M^G &\leftarrow (1-\beta)\, M^G + \beta\, g & (6) \\
        D &= \tau_{SO}\, M^G / M^H \text{ for order 2}, \quad D = M^G \text{ for order 1} \\
        W &\leftarrow W - \tau\, (D + \eta\, W) & (7)

    where (4) and (5) run for **one** second-order parameter, in turn and in registration order (section
    3.3), and :math:`v` is the vector of ones (3). A cycle takes M steps, M the number of second-order
    parameters; with ``hessian_interval=k`` it takes k M, and the steps between are plain SGD's in price.

    So it is printed, and ``variant="paper"`` does it. The code that made the paper's tables does something
    else, ``variant="authors"``:

    =============================== ============================= ===========================================
    what                            ``"paper"``                   ``"authors"`` (default)
    =============================== ============================= ===========================================
    rectified Hessian (4)           √(H² + ε)                     \|H\|
    average M^H (5)                 (1−α)·old + α·new             α·old + (1−α)·new
    M^H before its first refresh    √ε, a zero Hessian rectified  0
                                    (the paper does not say)
    inverse                         1 / M^H                       1 / (M^H + ε)
    answer to the start at zero     none                          D times 1 − αⁿ, n = ⌊t / M⌋ + 1, t counted
                                                                  from 1, the same n for all
    momentum M^G (6)                (1−β)·old + β·g, from 0       β·old + g, started at the first g
    last second-order parameter     as all others                 first-order, yet has its turn in the cycle
    decay, second-order             added to D                    added to D
    decay, first-order              added to D                    inside M^G, as torch's SGD does
    =============================== ============================= ===========================================

    :mod:`sgdph_fx.optim.variants` lists the few places where ours differs from the authors' code.

    Two ways to call it give equal results, the first for less: tangents pass only what lies above the due
    parameter (:mod:`sgdph_fx.curvature.lean`), and no graph of a gradient is made::

        optimizer.backward(loss)                    loss.backward(create_graph=True)
        optimizer.step()                            optimizer.step()

    Args:
        params: Parameters, named parameters, or groups: dicts with ``params``, any argument below but
            ``variant``, ``order`` (1 or 2; 1 if absent), and ``index`` (ints: the places of ``params`` in
            the registration order of the whole model, in which Hessians are refreshed; groups without it
            come last, in their order). Other keys (``role``, ``name``) are carried along. Dense real leaves
            of any shape, dtype and device. The dicts are copied, not changed.
        lr: τ, the step size; a number or a tensor of one number.
        second_order_lr: τ_SO, on top of τ for second-order parameters. The paper's: 1e-3.
        momentum: β, of the gradient. The paper's: 0.9. In [0, 1), for the paper's variant in (0, 1].
        hessian_momentum: α, of the Hessian. The paper's: 0.9. Ranges as β's.
        weight_decay: η.
        eps: ε, of the rectification. The paper's: 1e-4.
        variant: ``"authors"`` or ``"paper"``, one for all groups.
        probe: How diag(H) is read. ``"ones"``: (3), the block's row sums. ``"rademacher"``: z∘(Hz), z random
            signs, at the same price; M^H then averages it with its sign, and (4) is taken of the average
            instead. ``"exact"``: one product for each number of the parameter.
        hessian_interval: k, one for all groups: a Hessian is refreshed at steps 1, k + 1, 2k + 1, ...
        max_preconditioner: The most that the factor on M^G in D may be, everything in it; 1 keeps
            second-order steps within SGD's, also where H is nothing but rounding. None for no bound.
        seed: Decides the signs z together with the step's number, alike on all processes.
        maximize: Climb instead of descend.
        foreach: torch's multi-tensor calls, or a plain loop with the same bits; None lets torch choose.

    :meth:`state_dict` holds all of its state: for each parameter ``momentum_buffer`` (M^G), for
    second-order ones ``hessian_average`` (M^H), and in each group ``step``, the number of steps taken,
    alike in all. What :meth:`backward` found is no state: like ``.grad``, it lives until :meth:`step` or
    :meth:`zero_grad`.

    Raises:
        OptimizerError: for a hyper-parameter out of range, a sparse or complex parameter, or an ``index``
            that gives no order.
    """

    # The convention by which training scripts know to call `loss.backward(create_graph=True)`.
    is_second_order = True

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor,
        *,
        second_order_lr: float = 1e-3,
        momentum: float = 0.9,
        hessian_momentum: float = 0.9,
        weight_decay: float = 0.0,
        eps: float = 1e-4,
        variant: VariantName = "authors",
        probe: ProbeName = "ones",
        hessian_interval: int = 1,
        max_preconditioner: float | None = None,
        seed: int = 0,
        maximize: bool = False,
        foreach: bool | None = None,
    ) -> None:
        self._pending: Pending | None = None
        defaults = {
            "lr": lr,
            "second_order_lr": second_order_lr,
            "momentum": momentum,
            "hessian_momentum": hessian_momentum,
            "weight_decay": weight_decay,
            "eps": eps,
            "variant": variant,
            "probe": probe,
            "hessian_interval": hessian_interval,
            "max_preconditioner": max_preconditioner,
            "seed": seed,
            "maximize": maximize,
            "foreach": foreach,
            "order": 1,
            "step": 0,
        }
        check_hyperparameters(defaults, defaults, "SGDPH")
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its second-order parameters join the Hessian cycle, which then takes more steps.

        Raises:
            OptimizerError: as the constructor; the optimizer is left as it was.
        """
        number = len(self.param_groups)
        check_is_group(param_group, number)
        taken = self.param_groups[0]["step"] if self.param_groups else 0
        values = {**self.defaults, **param_group, "step": taken}
        check_hyperparameters(
            values, self.param_groups[0] if number else self.defaults, f"param_groups[{number}]"
        )
        super().add_param_group(values)
        try:
            check_group(values, number, self.param_groups[:-1])
        except BaseException:
            del self.param_groups[-1]
            raise

    @property
    def due(self) -> Tensor | None:
        """The parameter whose Hessian the next step refreshes; None where that step needs no product."""
        return self._schedule().due(self._steps_taken + 1)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of ``loss`` to ``.grad`` as ``loss.backward()`` does, and find the due Hessian.

        Call it several times before :meth:`step` to sum over micro-batches: the Hessian is summed like the
        gradients. The graph of ``loss`` is freed and no ``.grad`` carries one; they are ``loss.backward()``'s
        to the bit, and every hook runs as in it. A hook that changes a gradient on its way is not differentiated:
        for that call ``loss.backward(create_graph=True)``.

        Args:
            loss: One real number with its graph, of any dtype and device.

        Raises:
            StaleOptimizerError: if the loss reaches none of the optimizer's parameters.
            NoCurvatureError: if an operation on the way to the due parameter has no second derivative.
            OptimizerError: if ``loss`` is not one real number that requires a gradient.

        On any of these, no gradient has been written.
        """
        check_loss(loss)
        check_reached(loss, self.param_groups)
        due = self.due
        if due is None:
            self._pending = None
            loss.backward()  # type: ignore[no-untyped-call]
            return
        # A sum goes on only as long as the gradient that it belongs to.
        earlier = self._pending if due.grad is not None else None
        found = from_loss(loss, Due.of(due, self.param_groups, self._steps_taken + 1))
        self._pending = found.plus(earlier)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step: refresh the Hessian that is due, then move every parameter that has a gradient.

        Args:
            closure: Computes the loss, calls :meth:`backward` (or ``loss.backward(create_graph=True)``), and
                returns the loss.

        Returns:
            What the closure returned; None without one.

        Raises:
            NoCurvatureError: if a Hessian is due, and neither :meth:`backward` was called nor a graph kept.
            OptimizerError: if a gradient is sparse.

        On either of these, nothing has been written.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        refuse_sparse_gradients(self.param_groups)
        t, schedule = self._steps_taken + 1, self._schedule()
        found = self._found(schedule.due(t))
        self._pending = None
        release_graphs(self.param_groups)
        if found is not None:
            take_in(found, self.param_groups, self.state)
        for group in self.param_groups:
            move(group, self.state, schedule, t)
            group["step"] = t
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients, and drop the Hessian that :meth:`backward` found along with them."""
        super().zero_grad(set_to_none)
        self._pending = None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` gave; training goes on where it was, in the middle of a cycle too.

        Raises:
            OptimizerError: if it is another optimizer's, or was saved with other orders or another variant.
        """
        check_saved_groups(state_dict["param_groups"], self.param_groups)
        super().load_state_dict(state_dict)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._pending = None

    @property
    def _steps_taken(self) -> int:
        steps: int = self.param_groups[0]["step"]
        return steps

    def _schedule(self) -> Schedule:
        # Made anew each time: wrappers put other tensors into the groups.
        spare_last = VARIANTS[self.defaults["variant"]].spare_last
        interval = self.param_groups[0]["hessian_interval"]
        return Schedule.of(self.param_groups, spare_last=spare_last, interval=interval)

    def _found(self, due: Tensor | None) -> Pending | None:
        if due is None:
            return None
        if self._pending is not None and self._pending.parameter is due:
            return self._pending
        return from_gradient(Due.of(due, self.param_groups, self._steps_taken + 1), self.param_groups)
