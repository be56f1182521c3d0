"""The optimizer: SGD for most parameters, Newton-type steps for the channel-wise ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import overload

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.optim.optimizer import ParamsT

from sgdph_fx.optim.hessian.estimators import (
    BlocksName,
    CurvatureName,
    FallbackName,
    NegativeName,
    ProbeName,
    RefreshName,
    usual_probe,
)
from sgdph_fx.optim.hessian.finding import refuse_repeated_draws
from sgdph_fx.optim.hessian.loss_checks import check_loss, refuse_inference_mode
from sgdph_fx.optim.processes.all_reduce import ProcessGroup
from sgdph_fx.optim.stepping import Stepping
from sgdph_fx.optim.variants import VariantName

__all__ = ["SGDPH"]


class SGDPH(Stepping):
    r"""SGD with Partial Hessian, Algorithm 1 of Sun, Yong and Zhang, arXiv:2403.02681.

    Groups with ``order`` 2, the channel-wise parameters, take Newton-type steps; groups with ``order`` 1,
    or that do not say, take SGD's steps with momentum. At every step, with :math:`g` the gradient,

    .. math::
        \tilde H &= \sqrt{(H v)^2 + \epsilon} & (4) \\
        M^H &\leftarrow (1-\alpha)\, M^H + \alpha\, \tilde H & (5) \\
        M^G &\leftarrow (1-\beta)\, M^G + \beta\, g & (6) \\
        D &= \tau_{SO}\, M^G / M^H \text{ for order 2}, \quad D = M^G \text{ for order 1} \\
        W &\leftarrow W - \tau\, (D + \eta\, W) & (7)

    where (4) and (5) run for **one** second-order parameter, in turn and in registration order (section 3.3), and
    :math:`v` is the vector of ones (3). A cycle takes M steps, M the number of second-order parameters; with
    ``hessian_interval=k`` it takes k M, and the steps between cost what plain SGD's do.

    These are the printed equations, and ``variant="paper"`` follows them. The code that made the paper's tables
    differs, and ``variant="authors"`` follows it; :mod:`sgdph_fx.optim.variants` lists all differences.

    You can call it in two ways with equal results. The first costs less: tangents pass only what lies above the due
    parameter (:mod:`sgdph_fx.curvature.forward_over_reverse`), and no graph of a gradient is made::

        optimizer.backward(loss)                    loss.backward(create_graph=True)
        optimizer.step()                            optimizer.step()

    Args:
        params: Parameters, named parameters, or groups: dicts with ``params``, any argument below but
            ``variant``, ``curvature``, ``refresh``, ``blocks``, ``hessian_interval`` and ``capturable``, ``order`` (1
            or 2; 1 if absent), and ``index`` (ints: the places of ``params`` in the registration order of the whole
            model, in which Hessians are refreshed; groups without it come last). Other keys (``role``, ``name``) are
            carried along. Dense leaves of any shape, dtype and device, real ones where the order is 2.
        lr: τ, the step size; a number or a tensor of one number.
        second_order_lr: τ_SO, on top of τ for second-order parameters. The paper's: 1e-3.
        momentum: β, of the gradient. The paper's: 0.9. In [0, 1), for the paper's variant in (0, 1].
        hessian_momentum: α, of the Hessian. The paper's: 0.9. Ranges as β's.
        weight_decay: η.
        eps: ε, of the rectification. The paper's: 1e-4.
        variant: ``"authors"`` or ``"paper"``, one for all groups.
        curvature: Which matrix the diagonal is of, one for all groups. ``"hessian"``: H, the paper's.
            ``"gauss-newton"``: :math:`J^\top A J`, J the derivative of the network's outputs, A the Hessian of the loss
            by them. It is never negative, and takes :meth:`backward` and a loss of a known form, such as cross-entropy.
        probe: How the diagonal is read. ``"ones"``, the Hessian's default: (3), the block's row sums.
            ``"rademacher"``, Gauss-Newton's default: z∘(Hz), z random signs, at the same price; M^H then averages it
            with its sign, and (4) is taken of the average. ``"rademacher-4"``: the mean of four draws.
            ``"exact"``: a product for each number of the parameter, of Gauss-Newton for each output. ``"gradient"``:
            none, \|g\| in place of \|Hv\|, at SGD's price; it is a normalized step, not curvature. Gauss-Newton takes
            ``"rademacher"`` and ``"exact"``.
        negative_curvature: What a negative Hessian means. ``"absolute"``: (4), its absolute value. ``"average"``:
            estimates are averaged with their sign before (4), as ``"rademacher"`` always does. ``"zero"``: likewise,
            and a negative average counts as zero, so set ``max_preconditioner`` as well.
        refresh: ``"cycle"``: one average at a time, in turn. ``"all"``, for Gauss-Newton and ``probe="gradient"``: all.
        blocks: ``"diagonal"``, or ``"affine"``: scale and shift of a channel, known by their names, share a turn and a
            2×2 matrix M^H; D has its damped inverse in place of 1 / M^H (:mod:`sgdph_fx.optim.affine_blocks.step`).
        hessian_interval: k, one for all groups: averages are refreshed at steps 1, k + 1, 2k + 1, ...
        max_preconditioner: The most that the factor on M^G in D may be; 1 keeps second-order steps within SGD's, also
            where H is nothing but rounding. None for no bound.
        without_curvature: What becomes of a parameter below an operation that has no second derivative.
            ``"gradient"``: \|g\| stands in for \|Hv\|. ``"first-order"``: it takes SGD's steps, as if its order
            were 1. ``"raise"``: :class:`sgdph_fx.errors.NoCurvatureError`. The first such parameter warns by name, all
            are counted.
        seed: Decides the signs together with the step: z alike on all processes, Gauss-Newton's apart on each.
        maximize: Climb instead of descend. What is descended is -loss, and the averages are of its matrix.
        foreach: torch's multi-tensor calls, or a plain loop with the same bits (in halves but for rounding, as in
            torch's SGD); None for torch's choice.
        capturable: Whether a step may be captured in a CUDA graph: the host reads nothing, counts are kept on the
            device and brought up to date by :meth:`state_dict`, ``lr`` may be a tensor on the device. A step that is
            skipped has used up its turn in the cycle. :class:`sgdph_fx.CapturedStep` sees to all this.
        process_group: The processes over which gradients are averaged, and the Hessian with them, by one small
            all-reduce at each step. None for all, if ``torch.distributed`` is initialized; a group of one for a process
            that trains by itself beside others. Neither saved nor copied.

    A step whose loss or gradients are not finite is skipped; a Hessian that is not finite is left out, and the step
    taken. Both are counted, the first of each warns. A step without any gradient does nothing and counts as none.

    :meth:`state_dict` holds all of its state: for each parameter ``momentum_buffer`` (M^G), for second-order ones
    ``hessian_average`` (M^H), for a shift ``hessian_coupling``, and ``lacks_curvature`` where that is so; in each
    group, alike in all, ``step``, the number of steps taken, ``steps_skipped``, ``refreshes_skipped``,
    ``curvature_missed``, and ``products_given_up``. What :meth:`backward` found for the next step is no state.

    Raises:
        OptimizerError: for a hyper-parameter out of range, a parameter that cannot be stepped, or an ``index``
            that gives no order.

    >>> import torch
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 1))
    >>> groups = [
    ...     {"params": [net[1].weight, net[1].bias, net[0].bias], "order": 2},
    ...     {"params": [net[0].weight, net[2].weight, net[2].bias], "order": 1},
    ... ]
    >>> optimizer = SGDPH(groups, lr=0.1)
    >>> optimizer.backward(net(torch.randn(16, 4)).square().mean())
    >>> optimizer.step()
    >>> optimizer.statistics()["step"]
    1
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
        curvature: CurvatureName = "hessian",
        probe: ProbeName | None = None,
        negative_curvature: NegativeName = "absolute",
        refresh: RefreshName = "cycle",
        blocks: BlocksName = "diagonal",
        hessian_interval: int = 1,
        max_preconditioner: float | None = None,
        without_curvature: FallbackName = "gradient",
        seed: int = 0,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
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
            "curvature": curvature,
            "probe": usual_probe(curvature) if probe is None else probe,
            "negative_curvature": negative_curvature,
            "refresh": refresh,
            "blocks": blocks,
            "hessian_interval": hessian_interval,
            "max_preconditioner": max_preconditioner,
            "without_curvature": without_curvature,
            "seed": seed,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    # Not for a compiler to trace: it takes what the optimizer keeps from step to step for constants.
    @_disable_dynamo
    def backward(
        self,
        loss: Tensor,
        *,
        hessian_loss: Callable[[], Tensor] | None = None,
        module: nn.Module | None = None,
        retain_graph: bool = False,
    ) -> None:
        """Add the gradients of ``loss`` to ``.grad`` as ``loss.backward()`` does, and find the due Hessian.

        Call it several times before :meth:`step` to sum over micro-batches or losses: the Hessian is summed like the
        gradients. No ``.grad`` carries a graph; they are ``loss.backward()``'s to the bit, and every hook runs as in
        it. A hook that changes a gradient is not differentiated: for that call ``loss.backward(create_graph=True)``.

        Args:
            loss: One real number with its graph, of any dtype and device.
            hessian_loss: Computes another loss, by a forward pass of its own on part of the batch, say; it is called
                where a Hessian is due, which is that of its loss. Modules that it calls keep their buffers, and random
                numbers are drawn as if it had not been called.
            module: What computed the loss; needed for parameters that ``fully_shard`` has cut into pieces.
            retain_graph: Keep the graph, for another loss that shares it; otherwise it is freed.

        Raises:
            StaleOptimizerError: if the loss reaches none of the optimizer's parameters.
            NoCurvatureError: with ``without_curvature="raise"``, if an operation on the way has no second derivative.
            OptimizerError: if ``loss`` is not one real number that requires a gradient, its graph has been used
                up, or ``torch.inference_mode()`` is on.

        On any of these, no gradient has been written, unless ``hessian_loss`` fails, the graph was used, or a function
        written in Python hides its use of the due parameter.
        """
        refuse_inference_mode("backward()")
        check_loss(loss)
        due = self._request(self._steps_taken + 1, module)
        if self.param_groups[0]["capturable"]:
            refuse_repeated_draws(due)
        self._find(loss, due, hessian_loss, retain_graph=retain_graph, order=self._walked(loss, due))

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @_disable_dynamo
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step: refresh the Hessian that is due, then move every parameter that has a gradient.

        Args:
            closure: Computes the loss, calls :meth:`backward` (or ``loss.backward(create_graph=True)``), and
                returns the loss.

        Without any gradient nothing happens, and the due parameter keeps its turn. A first step with all lr and
        gradients zero makes the state and counts as none: ``torch.distributed.checkpoint`` takes it to load.

        Returns:
            What the closure returned; None without one.

        Raises:
            NoCurvatureError: if a Hessian is due, and neither :meth:`backward` was called nor a graph kept.
            OptimizerError: if a gradient is sparse or still scaled by a ``GradScaler``, a tensor that the Hessian
                needs was changed, or ``torch.inference_mode()`` is on.

        On any of these, nothing has been written.
        """
        refuse_inference_mode("step()")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._take_step()
        return loss
