"""Training steps as CUDA graphs: one for each parameter that falls due, one for the steps without a refresh."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.amp.grad_scaler import GradScaler

from sgdph_fx.curvature.autograd_graph import nodes
from sgdph_fx.optim.capture.accumulators import renew_accumulators
from sgdph_fx.optim.capture.batch import Batch, Places
from sgdph_fx.optim.capture.changes import Changes, Recorded, parameters
from sgdph_fx.optim.capture.checks import (
    refuse_compiled,
    refuse_iterators,
    refuse_several_devices,
    refuse_several_processes,
    refuse_shared_functions,
    refuse_surroundings,
)
from sgdph_fx.optim.capture.cuda_graphs import Recorder, Recording, failures_explained
from sgdph_fx.optim.capture.dry_run import dry_run
from sgdph_fx.optim.capture.second_optimizers import begin_anew, unscale
from sgdph_fx.optim.capture.signs import Signs
from sgdph_fx.optim.hessian.loss_checks import check_loss, refuse_inference_mode
from sgdph_fx.optim.hessian.request import HessianRequest
from sgdph_fx.optim.sgdph import SGDPH

__all__ = ["CapturedStep"]


class CapturedStep:
    """A whole training step: forward, backward, the due Hessian, and the optimizer's step, called like a function.

    On a GPU the steps run as CUDA graphs, which take the host's time out of them. A graph is recorded when its
    parameter falls due for the second time; the first time, the step runs without one, which is the warm-up that CUDA
    asks for. All graphs share one pool of memory. Elsewhere every step runs without graphs, to the same results.

    Learning rates may change from step to step. Anything else that a step depends on makes the graphs be recorded
    anew when it changes: options of the groups, settings of the scaler and of torch, the training mode,
    ``requires_grad``, hooks, attributes of modules, what the code of the step reads from variables, objects, classes
    and files, that code itself, a loaded state. A batch of another shape than the first, or with other numbers that are
    no tensors, runs without a graph. A step whose loss or gradients are not finite is skipped on the device, uses its
    turn up, and is counted in ``optimizer.steps_skipped``.

    Hooks after the optimizer's step are called. Python inside the step, hooks of modules too, runs only where a step
    is recorded. A copy, or what is read from a pickle, records graphs of its own; a function that reads the model from
    outside of itself keeps the old one, so such a copy is refused.

    Args:
        model: The prepared model, in one process, on one device, not wrapped and not compiled.
        loss_fn: ``loss_fn(model(inputs), targets)``, one number; a function, or a module with parameters of its own.
        optimizer: Of the model's parameters; it is made ``capturable``.
        autocast: Run model and loss under ``torch.autocast`` in this precision.
        scaler: Scale the loss with it, unscale the gradients, and update it, at each step.
        before_step: Called between the backward pass and the step, where gradients are there and unscaled: for
            clipping, or the step of a second optimizer that is ``capturable``. It is recorded too. With a scaler
            ``scaler.step(second)`` skips what is not finite, without a read by the host where ``second`` is ``fused``.

    Raises:
        CaptureError: if the model is wrapped, several processes train it, or the optimizer is no SGDPH.

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
        self.reset()
        optimizer._make_capturable()

    def reset(self) -> None:
        """Drop all graphs, and the memory that they hold; they are recorded anew, for batches like the next one."""
        self._device = next((p.device for p in self._model.parameters()), torch.device("cpu"))
        self._recorder = Recorder(self._device)
        self._places: Places | None = None
        self._changes = Changes()
        roots, on_gpu = (self._model, self._loss_fn), self._device.type != "cpu"
        self._recorded = Recorded(roots, self._optimizer, self._before_step, self._scaler, on_gpu)
        self._counts, self._memory = True, ()
        self._drop_graphs()

    def _drop_graphs(self) -> None:
        self._recordings: dict[int | None, Recording] = {}
        self._recorder.forget()
        self._warm: set[int | None] = set()
        self._signs = Signs(self._device)

    def __getstate__(self) -> dict[str, Any]:
        """All but graphs and places in memory: a copy, or what is read from a file, makes its own."""
        kept = ("_model", "_loss_fn", "_optimizer", "_autocast", "_before_step", "_scaler")
        return {key: self.__dict__[key] for key in kept}

    def __deepcopy__(self, memo: dict[int, Any]) -> CapturedStep:
        refuse_shared_functions(self._model, self._optimizer, (self._loss_fn, self._before_step))
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return copied

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.reset()

    @property
    def graphs(self) -> int:
        """How many graphs have been recorded."""
        return len(self._recordings)

    @_disable_dynamo
    def __call__(self, inputs: Any, targets: Any) -> Tensor:
        """Take one training step.

        Args:
            inputs: A tensor, a tuple of positional arguments, or a dict of keyword arguments of the model; their
                parts may be tensors without a graph, numbers and texts, in any structure of tuples, lists and dicts.
            targets: The second argument of ``loss_fn``: a tensor, or any structure of them.

        Returns:
            The loss, one number on the model's device, without graph. Gradients are None afterwards, and those that
            were there before are dropped.

        Raises:
            CaptureError: at the first call, or when a graph is recorded: if the step depends on what the host reads,
                draws or counts. At any call for a batch with a graph or an unknown class in it, under
                ``torch.autocast``, and with a hook before the step. Model and optimizer are as they were.
            OptimizerError: as :meth:`sgdph_fx.SGDPH.backward`.
        """
        optimizer = self._optimizer
        refuse_inference_mode("CapturedStep")
        refuse_surroundings(self._model, optimizer, self._device, autocast=self._autocast is not None)
        if next((p.device for p in self._model.parameters()), self._device) != self._device:
            self.reset()
        batch = Batch.of(inputs, targets, self._device, optimizer._layout().holds)
        places = self._places or self._begin(batch)
        self._code, self._has_run = self._recorded.code(), False
        optimizer._numbers_on(self._device)
        by_graph = self._may_use_graphs(places.misfit(batch))
        request = self._signs.drawn(optimizer._request(optimizer._steps_taken + 1))
        if by_graph:
            places.take(batch)
            loss = self._by_graph(places.batch, request)
        else:
            loss = self._run(batch, request)
        if self._has_run and self._uses_graphs():
            self._changes.settle(self._recorded.signature(self._recorded.code()))
        optimizer._finish_recorded_step(self._counts)
        return loss

    def _begin(self, batch: Batch) -> Places:
        """The first batch: run it dry, and keep its place in memory for those to come."""
        refuse_compiled(self._model)
        refuse_several_devices(self._model, self._optimizer)
        refuse_iterators(self._recorded.code())
        seen = dry_run(lambda: self._loss(batch), self._model, self._loss_fn, batch.leaves, self._device)
        self._optimizer._unowned.check(check_loss(seen.loss), self._optimizer._layout(), nodes(seen.loss))
        self._optimizer._make_state()
        self._recorded, self._memory = replace(self._recorded, left_behind=seen.left_behind), seen.memory
        self._places = Places(batch)
        return self._places

    def _loss(self, batch: Batch) -> Tensor:
        kind, enabled = self._device.type, self._autocast is not None
        with torch.autocast(kind, self._autocast, enabled=enabled, cache_enabled=False):
            return batch.loss(self._model, self._loss_fn)

    def _run(self, batch: Batch, request: HessianRequest | None) -> Tensor:
        """One step, run or recorded: all that happens on the device, and no count of the host's."""
        optimizer, scaler = self._optimizer, self._scaler
        held, self._has_run = self._held(), True
        self._drop_gradients(held)
        try:
            loss = check_loss(self._loss(batch))
            scaled = loss if scaler is None else scaler.scale(loss)
            optimizer._find(scaled, request, order=optimizer._walked(scaled, request))
            scale = None
            if scaler is not None:
                scale = scaler._get_scale_async()
                unscale(scaler, optimizer, self._code)
            if self._before_step is not None:
                self._before_step()
            self._counts = optimizer._step_recorded(scale)
            if scaler is not None:
                scaler.update()
        finally:
            self._drop_gradients(held)
            if scaler is not None:
                begin_anew(scaler, (optimizer, *self._code.optimizers))
        return loss.detach()

    def _held(self) -> list[Tensor]:
        return parameters(self._code, self._optimizer)

    def _drop_gradients(self, held: Iterable[Tensor]) -> None:
        self._optimizer._estimate = None
        for parameter in held:
            parameter.grad = None

    def _by_graph(self, batch: Batch, request: HessianRequest | None) -> Tensor:
        key = None if request is None else id(request.parameter)
        run = partial(self._run, batch, request)
        if key not in self._recordings:
            renew_accumulators(self._held())
        if key not in self._warm:
            loss = self._recorder.warm_up(run)
            self._warm.add(key)  # after a refusal the next step is to be refused as well
            return loss
        if key not in self._recordings:
            self._recordings[key] = self._record(run)
        recording = self._recordings[key]
        loss = recording.run()
        self._counts = recording.counts
        self._optimizer._count_given_up(times=recording.given_up)
        return loss

    def _record(self, run: Callable[[], Tensor]) -> Recording:
        before = self._optimizer.param_groups[0]["products_given_up"]
        try:
            with failures_explained():
                recording = self._recorder.record(run)
        finally:
            given_up = self._optimizer.param_groups[0]["products_given_up"] - before
            self._optimizer._count_given_up(times=-given_up)
        return replace(
            recording, given_up=given_up, counts=self._counts, written=self._recorded.tensors(self._code)
        )

    def _may_use_graphs(self, misfit: str) -> bool:
        """Whether this step runs by a graph; graphs of what has changed are dropped."""
        if not self._uses_graphs():
            return False
        if self._changes.note(self._recorded.signature(self._code)):
            self._drop_graphs()
        return self._changes.fit(misfit) and not self._changes.too_many

    def _uses_graphs(self) -> bool:
        return self._device.type == "cuda"
