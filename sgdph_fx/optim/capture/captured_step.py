"""Training steps as CUDA graphs: one for each parameter that falls due, one for the steps without a refresh."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.utils import _pytree as pytree

from sgdph_fx.curvature.autograd_graph import nodes
from sgdph_fx.errors import CaptureError, OptimizerError
from sgdph_fx.optim.capture.checks import alike, refuse_several_processes, signature
from sgdph_fx.optim.capture.cuda_graphs import Recorder, Recording
from sgdph_fx.optim.capture.dry_run import dry_run
from sgdph_fx.optim.hessian.loss_checks import check_loss
from sgdph_fx.optim.hessian.request import HessianRequest
from sgdph_fx.optim.sgdph import SGDPH
from sgdph_fx.optim.wording import listed, warn

__all__ = ["CapturedStep"]

_CHANGES_TOLERATED = 3


class CapturedStep:
    """A whole training step: forward, backward, the due Hessian, and the optimizer's step, called like a function.

    On a GPU the steps run as CUDA graphs, which take the host's time out of them. A graph is recorded when its
    parameter falls due for the second time; the first time, the step runs without one, which is the warm-up that CUDA
    asks for. All graphs share one pool of memory. Elsewhere every step runs without graphs, to the same results.

    Learning rates may change from step to step; any other option, the training mode, ``requires_grad``, a loaded
    state make the graphs be recorded anew. A batch of another shape than the first runs without a graph. A step whose
    loss or gradients are not finite is skipped on the device, uses its turn up, and is counted in
    ``optimizer.steps_skipped``.

    Args:
        model: The prepared model, in one process and not wrapped.
        loss_fn: ``loss_fn(model(inputs), targets)``, one number.
        optimizer: Of the model's parameters; it is made ``capturable``.
        autocast: Run model and loss under ``torch.autocast`` in this precision.
        scaler: Scale the loss with it, unscale the gradients, and update it, at each step.
        before_step: Called between the backward pass and the step, where gradients are there and unscaled: for
            clipping. It is recorded too.

    Raises:
        CaptureError: if the model is wrapped, or several processes train it.

    >>> import torch
    >>> from torch import nn
    >>> from sgdph_fx import CapturedStep, SGDPH, param_groups
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    >>> optimizer = SGDPH(param_groups(net), lr=0.1)
    >>> step = CapturedStep(net, nn.functional.cross_entropy, optimizer)
    >>> for _ in range(3):
    ...     loss = step(torch.randn(16, 4), torch.randint(2, (16,)))
    >>> loss.shape, optimizer.statistics()["step"]
    (torch.Size([]), 3)
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Callable[[Any, Any], Tensor],
        optimizer: SGDPH,
        *,
        autocast: torch.dtype | None = None,
        scaler: GradScaler | None = None,
        before_step: Callable[[], object] | None = None,
    ) -> None:
        refuse_several_processes(model, optimizer)
        self._model, self._loss_fn, self._optimizer = model, loss_fn, optimizer
        self._autocast, self._before_step = autocast, before_step
        self._scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self._device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self._recorder = Recorder(self._device)
        self._signs: dict[int, Tensor] = {}
        self._static: list[Any] | None = None
        self._spec: Any = None
        self._changes = 0
        self.reset()
        optimizer._make_capturable()

    def reset(self) -> None:
        """Drop all graphs, and the memory that they hold; they are recorded anew when they are needed."""
        self._recordings: dict[int | None, Recording] = {}
        self._warm: set[int | None] = set()
        self._signature: Mapping[str, object] = {}

    @property
    def graphs(self) -> int:
        """How many graphs have been recorded."""
        return len(self._recordings)

    def __call__(self, inputs: Any, targets: Any) -> Tensor:
        """Take one training step.

        Args:
            inputs: A tensor, a tuple of positional arguments, or a dict of keyword arguments of the model.
            targets: The second argument of ``loss_fn``: a tensor, or any structure of them.

        Returns:
            The loss, one number on the model's device, without graph. Gradients are None afterwards.

        Raises:
            CaptureError: at the first call, or when a graph is recorded: if the step depends on what the host reads,
                draws or counts. Model and optimizer are as they were.
            OptimizerError: as :meth:`sgdph_fx.SGDPH.backward`.
        """
        leaves, spec = pytree.tree_flatten((inputs, targets))
        leaves = [t.to(self._device, non_blocking=True) if isinstance(t, Tensor) else t for t in leaves]
        if self._static is None:
            self._begin(leaves, spec)
        self._optimizer._numbers_on(self._device)
        request = self._with_drawn_signs(self._optimizer._request(self._optimizer._steps_taken + 1))
        if not self._uses_graphs() or not self._fits(leaves, spec) or self._changes > _CHANGES_TOLERATED:
            loss = self._run(leaves, spec, request)
        else:
            loss = self._by_graph(leaves, request)
        self._optimizer._finish_step()
        self._optimizer._opt_called = True  # type: ignore[attr-defined]  # a scheduler looks here for a step before its own
        return loss

    def _begin(self, leaves: list[Any], spec: Any) -> None:
        """The first batch: run it dry, and keep its place in memory for those to come."""
        batch = pytree.tree_unflatten(leaves, spec)
        loss = dry_run(lambda: self._loss(batch), self._model, batch, self._device)
        self._optimizer._unowned.check(check_loss(loss), self._optimizer._layout(), nodes(loss))
        self._optimizer._make_state()
        self._static = [t.clone() if isinstance(t, Tensor) else t for t in leaves]
        self._spec = spec

    def _loss(self, batch: Any) -> Tensor:
        inputs, targets = batch
        kind, enabled = self._device.type, self._autocast is not None
        with torch.autocast(kind, self._autocast, enabled=enabled, cache_enabled=False):
            if isinstance(inputs, dict):
                outputs = self._model(**inputs)
            else:
                outputs = self._model(*inputs) if isinstance(inputs, tuple) else self._model(inputs)
            return self._loss_fn(outputs, targets)

    def _run(self, leaves: list[Any], spec: Any, request: HessianRequest | None) -> Tensor:
        """One step, run or recorded: all that happens on the device, and no count of the host's."""
        optimizer, scaler = self._optimizer, self._scaler
        self._drop_gradients()
        try:
            loss = check_loss(self._loss(pytree.tree_unflatten(leaves, spec)))
            optimizer._find(loss if scaler is None else scaler.scale(loss), request)
            scale = None
            if scaler is not None:
                scale = scaler._get_scale_async()
                scaler.unscale_(optimizer)
            if self._before_step is not None:
                self._before_step()
            optimizer._step_recorded(scale)
            if scaler is not None:
                scaler.update()
        finally:
            self._drop_gradients()
        return loss.detach()

    def _drop_gradients(self) -> None:
        self._optimizer._estimate = None
        for parameter in self._model.parameters():
            parameter.grad = None

    def _by_graph(self, leaves: list[Any], request: HessianRequest | None) -> Tensor:
        self._forget_what_changed()
        assert self._static is not None
        for place, leaf in zip(self._static, leaves, strict=True):
            if isinstance(place, Tensor):
                place.copy_(leaf, non_blocking=True)
        key = None if request is None else id(request.parameter)

        def run() -> Tensor:
            return self._run(self._static or [], self._spec, request)

        if key not in self._warm:
            self._warm.add(key)
            return self._recorder.warm_up(run)
        if key not in self._recordings:
            self._recordings[key] = self._record(run)
        recording = self._recordings[key]
        recording.replay()
        return recording.result.clone()

    def _record(self, run: Callable[[], Tensor]) -> Recording:
        try:
            return self._recorder.record(run)
        except OptimizerError:
            raise
        except RuntimeError as error:
            if self._scaler is not None:
                self._scaler._per_optimizer_states.pop(id(self._optimizer), None)
            raise CaptureError(
                f"This step cannot be captured as a CUDA graph: {str(error).splitlines()[0]} Something in the model, "
                "the loss or `before_step` works with the host in a way that the dry run did not see. Train this "
                "model without CapturedStep. Nothing has been changed by this step."
            ) from error

    def _forget_what_changed(self) -> None:
        now = signature(self._model, self._optimizer)
        changed = [name for name in now if self._signature.get(name, now[name]) != now[name]]
        self._changes = self._changes + 1 if changed else 0
        if changed:
            self.reset()
        if self._changes > _CHANGES_TOLERATED:
            warn(
                f"{listed(changed, 3)} changes at every step, so steps run without CUDA graphs from now on: a graph "
                "holds everything but learning rates. With OneCycleLR or CyclicLR pass cycle_momentum=False."
            )
        self._signature = now

    def _uses_graphs(self) -> bool:
        return self._device.type == "cuda"

    def _fits(self, leaves: list[Any], spec: Any) -> bool:
        """Whether the batch is of the first one's shape."""
        if spec != self._spec or self._static is None:
            return False
        return all(alike(leaf, place) for leaf, place in zip(leaves, self._static, strict=True))

    def _with_drawn_signs(self, request: HessianRequest | None) -> HessianRequest | None:
        """Random signs, or their key, come from the host, outside of any graph, into memory that stays where it is."""
        if request is None or request.probe is None or not request.draws_signs:
            return request
        if request.is_gauss_newton:
            key = request.sign_key
            place = self._signs.setdefault(id(request.parameter), key.to(self._device))
            place.copy_(key, non_blocking=True)
            return replace(request, key=place)
        drawn = torch.stack(list(request.probe.vectors(request.parameter, request.generator)))
        place = self._signs.setdefault(id(request.parameter), drawn)
        place.copy_(drawn, non_blocking=True)
        return replace(
            request, probe=replace(request.probe, vectors=lambda parameter, generator: iter(place))
        )
