"""The optimizer: SGD for most parameters, Newton-type steps for the channel-wise ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import overload

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from sgdph_fx.curvature.probes import ProbeName
from sgdph_fx.optim.all_reduce import ProcessGroup, all_reduce_hessian
from sgdph_fx.optim.base import OptimizerBase
from sgdph_fx.optim.group_step import apply_step, init_state, is_state_initialization, update_hessian_average
from sgdph_fx.optim.hessian_estimate import (
    HessianEstimate,
    HessianRequest,
    from_gradient,
    from_loss,
    release_graphs,
)
from sgdph_fx.optim.scaling import loss_scale
from sgdph_fx.optim.schedule import Schedule
from sgdph_fx.optim.shards import is_sharded, local
from sgdph_fx.optim.validation import check_loss, check_reached, refuse_sparse_gradients
from sgdph_fx.optim.variants import VARIANTS, VariantName

__all__ = ["SGDPH"]


class SGDPH(OptimizerBase):
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
    else, ``variant="authors"``: :mod:`sgdph_fx.optim.variants` lists the differences, and the few places
    where ours differs from the authors' code.

    Two ways to call it give equal results, the first for less: tangents pass only what lies above the due
    parameter (:mod:`sgdph_fx.curvature.forward_over_reverse`), and no graph of a gradient is made::

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
        process_group: The processes over which gradients are averaged, and the Hessian with them, by one small
            all-reduce at each step. None for all, if ``torch.distributed`` is initialized; a group of one for
            a process that trains by itself beside others. Neither saved nor copied.

    A step whose loss is not finite is skipped; a Hessian that is not finite is left out, and the step taken.
    In one process neither waits for a device to finish its backward pass; with several, each step awaits their
    all-reduce. Both are counted, and the first of each is told.

    :meth:`state_dict` holds all of its state: for each parameter ``momentum_buffer`` (M^G), for
    second-order ones ``hessian_average`` (M^H), and in each group, alike in all, ``step``, the number of
    steps taken, ``steps_skipped`` and ``refreshes_skipped``. What :meth:`backward` found is no state: like
    ``.grad``, it lives until :meth:`step` or :meth:`zero_grad`.

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
        process_group: ProcessGroup = None,
    ) -> None:
        self._process_group = process_group
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
        }
        super().__init__(params, defaults)

    @property
    def due(self) -> Tensor | None:
        """The parameter whose Hessian the next step refreshes; None where that step needs no product."""
        return self._schedule().due(self._steps_taken + 1)

    def backward(
        self,
        loss: Tensor,
        *,
        hessian_loss: Callable[[], Tensor] | None = None,
        module: nn.Module | None = None,
    ) -> None:
        """Add the gradients of ``loss`` to ``.grad`` as ``loss.backward()`` does, and find the due Hessian.

        Call it several times before :meth:`step` to sum over micro-batches: the Hessian is summed like the
        gradients. The graph of ``loss`` is freed and no ``.grad`` carries one; they are ``loss.backward()``'s
        to the bit, and every hook runs as in it. A hook that changes a gradient on its way is not differentiated:
        for that call ``loss.backward(create_graph=True)``.

        Args:
            loss: One real number with its graph, of any dtype and device.
            hessian_loss: Computes another loss, by a forward pass of its own on part of the batch, say; it is
                called where a Hessian is due, and the Hessian is that of its loss. Modules that it calls keep
                their buffers, and random numbers are drawn as if it had not been called.
            module: What computed the loss; needed for parameters that ``fully_shard`` has cut into pieces.

        Raises:
            StaleOptimizerError: if the loss reaches none of the optimizer's parameters.
            NoCurvatureError: if an operation on the way to the due parameter has no second derivative.
            OptimizerError: if ``loss`` is not one real number that requires a gradient.

        On any of these, no gradient has been written, unless it is ``hessian_loss`` that fails.
        """
        check_loss(loss)
        params = [p for group in self.param_groups for p in group["params"]]
        if not any(is_sharded(p) for p in params):
            check_reached(loss, self.param_groups)
            # A sum goes on only as long as the gradients that it belongs to.
            if all(p.grad is None for p in params):
                self._pending = None
        found = from_loss(loss, self._due_at(self._steps_taken + 1, module), hessian_loss)
        self._pending = found.accumulate(self._pending)

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

        A first step with all lr and all gradients zero makes the state and counts as none:
        ``torch.distributed.checkpoint`` takes it before it loads.

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
        self._skipped.settle(self.param_groups, wait=True)
        t, schedule = self._steps_taken + 1, self._schedule()
        if self._pending is None and is_state_initialization(self.param_groups, self.state):
            for group in self.param_groups:
                init_state(group, self.state, schedule)
            return loss
        found = self._found(t)
        self._pending = None
        release_graphs(self.param_groups)
        if not found.is_finite:
            self._skipped.step(self.param_groups)
            return loss
        self._skipped.watch(update_hessian_average(found, self.param_groups, self.state))
        for group in self.param_groups:
            apply_step(group, self.state, schedule, t)
            group["step"] = t
        self._skipped.settle(self.param_groups, wait=False)
        return loss

    def _schedule(self) -> Schedule:
        # Made anew each time: wrappers put other tensors into the groups.
        last_is_first_order = VARIANTS[self.defaults["variant"]].last_is_first_order
        interval = self.param_groups[0]["hessian_interval"]
        return Schedule.of(self.param_groups, last_is_first_order=last_is_first_order, interval=interval)

    def _due_at(self, t: int, module: nn.Module | None = None) -> HessianRequest | None:
        due = self._schedule().due(t)
        return None if due is None else HessianRequest.for_step(due, self.param_groups, t, module)

    def _found(self, t: int) -> HessianEstimate:
        device = local(self.param_groups[0]["params"][0]).device
        return all_reduce_hessian(self._found_here(t).unscale(loss_scale()), device, self._process_group)

    def _found_here(self, t: int) -> HessianEstimate:
        due, pending = self._due_at(t), self._pending
        if due is None:
            return HessianEstimate(None, None) if pending is None else pending
        if pending is None or pending.parameter is not due.parameter:
            return from_gradient(due, self.param_groups)
        return pending
