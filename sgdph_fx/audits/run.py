"""The audit: every second-order parameter's own Hessian block, measured on one batch."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sgdph_fx.audits.choose import Found, drawn, planned, second_order
from sgdph_fx.audits.entries import AuditRow
from sgdph_fx.audits.forward import LossFunction, loss_on, twice_differentiable
from sgdph_fx.audits.judge import Scale, judge, unused
from sgdph_fx.audits.result import Audit
from sgdph_fx.curvature import Block, chunk_for, measure_block, missing_derivatives_explained
from sgdph_fx.errors import AuditError, NoCurvatureError
from sgdph_fx.report.prepared import Prepared
from sgdph_fx.trace import untouched

__all__ = ["audit"]

Progress = Callable[[int, int], None]


def audit(
    prepared_or_model: Prepared | nn.Module,
    loss_fn: LossFunction,
    batch: tuple[Any, Any],
    *,
    sample: int | None = None,
    channels: int | None = None,
    draws: int = 8,
    seed: int = 0,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Measure how diagonal the Hessian of each second-order parameter is, and how far each probe is off.

    The block ∂²L/∂p² of each parameter p is found column by column, by exact Hessian-vector products, from one
    forward pass of the model in the mode that it is in: call ``model.train()`` first if training is what you
    ask about. (2) of the paper says that the block is diagonal; (3) returns its row sums.

    Args:
        prepared_or_model: What :func:`prepare` returned, or a model, which is audited as it stands, with
            nothing decoupled. Buffers, modes, gradients and the state of random number generators are the same
            afterwards.
        loss_fn: Called as ``loss_fn(model(inputs), targets)``; returns one real number.
        batch: ``(inputs, targets)``. Inputs are a tensor, a tuple of positional or a mapping of keyword
            arguments, on the model's device; targets are whatever ``loss_fn`` takes.
        sample: Audit that many parameters, drawn by ``seed``; None is all.
        channels: Measure at most that many numbers of each parameter, drawn by ``seed``; None is all. The
            other numbers still count in the columns that are measured.
        draws: Number of Rademacher probes.
        seed: Decides the draws and the samples. The same arguments give the same audit.
        chunk: How many products share one pass, at as many times the memory; None is one on a CPU, where more
            are slower, and 16 elsewhere.
        progress: Told (products taken, products in all) as it goes.

    Returns:
        The audit; printing it shows it.

    Raises:
        AuditError: if the batch, the loss or a parameter is not fit for it; the message says what to do.
        NoCurvatureError: if an operation between a parameter and the loss has no second derivative.
        ModelError, TraceError: as :func:`analyze`, for a model that is not prepared.
    """
    _require_counts(sample=sample, channels=channels, draws=draws, chunk=chunk)
    inputs, targets = _pair(batch)
    model, plan = planned(prepared_or_model, inputs)
    found = second_order(model, plan)
    if any(one.parameter.is_meta for one in found):
        raise AuditError(
            "The model is on the meta device, which holds no numbers to audit. Build it on another device."
        )
    generator = torch.Generator("cpu").manual_seed(seed)
    chosen = [found[k] for k in drawn(len(found), sample, generator).tolist()]
    places = [drawn(one.parameter.numel(), channels, generator) for one in chosen]
    with untouched(model), twice_differentiable():
        loss = loss_on(model, loss_fn, inputs, targets)
        gradients = _gradients(loss, found)
        measure = _Measure(gradients, draws, seed, chunk, progress)
        blocks = measure.all(chosen, places)
        scale = measure.scale(found, blocks)
    return Audit(
        model=plan.model,
        loss=getattr(loss_fn, "__name__", type(loss_fn).__name__),
        value=loss.item(),
        training=model.training,
        dtype=str(loss.dtype).removeprefix("torch."),
        draws=draws,
        seed=seed,
        parameters=len(found),
        rows=tuple(_row(one, blocks.get(one.what.name), scale) for one in chosen),
    )


def _require_counts(**counts: int | None) -> None:
    for name, count in counts.items():
        if count is not None and count < 1:
            raise AuditError(f"{name}={count} was asked for; it counts things, so at least 1 is needed.")


def _pair(batch: Any) -> tuple[Any, Any]:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise AuditError(
            f"The batch is a {type(batch).__name__}; pass a pair (inputs, targets), with None for targets that "
            "the loss function does not need."
        )
    return batch[0], batch[1]


def _gradients(loss: Tensor, found: Sequence[Found]) -> dict[str, Tensor]:
    """∂L/∂p with its graph, by name, of all that the loss depends on."""
    with missing_derivatives_explained():
        gradients = torch.autograd.grad(
            loss, [one.parameter for one in found], create_graph=True, allow_unused=True
        )
    return {one.what.name: g for one, g in zip(found, gradients, strict=True) if g is not None}


def _row(found: Found, block: Block | None, scale: Scale) -> AuditRow:
    return unused(found.what) if block is None else judge(found.what, block, scale)


class _Measure:
    """Measures blocks, and tells how far it has got."""

    def __init__(
        self,
        gradients: Mapping[str, Tensor],
        draws: int,
        seed: int,
        chunk: int | None,
        progress: Progress | None,
    ) -> None:
        self._gradients, self._draws, self._seed, self._chunk = gradients, draws, seed, chunk
        self._progress, self._done, self._total = progress, 0, 0

    def all(self, chosen: Sequence[Found], places: Sequence[Tensor]) -> dict[str, Block]:
        """The block of each parameter that the loss depends on, by name."""
        todo = [(f, p) for f, p in zip(chosen, places, strict=True) if f.what.name in self._gradients]
        self._total = sum(len(p) + 1 + self._draws for _, p in todo)
        return {f.what.name: self._block(f, p, self._draws, self._count) for f, p in todo}

    def scale(self, found: Sequence[Found], blocks: Mapping[str, Block]) -> Scale:
        """That of the blocks measured, and of one more probe where the gradient is largest.

        The further probe is for a small sample, which may hold nothing but parameters in which the loss is flat.
        """
        if not self._gradients:
            return Scale(0.0, 0.0, 0.0)
        sizes = {name: float(g.detach().abs().max()) for name, g in self._gradients.items()}
        steepest = next(f for f in found if f.what.name == max(sizes, key=sizes.__getitem__))
        seen = [float(block.peak.max()) for block in blocks.values()]
        if steepest.what.name not in blocks:
            extra = self._block(
                steepest, torch.zeros(1, dtype=torch.int64, device="cpu"), 1, lambda products: None
            )
            seen.append(float(extra.draws.abs().max()))
        middle = float(torch.tensor(list(sizes.values()), device="cpu").median())
        return Scale(middle, max(seen), torch.finfo(steepest.parameter.dtype).eps)

    def _block(self, found: Found, places: Tensor, draws: int, done: Callable[[int], None]) -> Block:
        name, parameter = found.what.name, found.parameter
        chunk = self._chunk or chunk_for(parameter.device)
        # Each parameter has draws of its own, the same in whatever sample it is.
        seed = self._seed + zlib.crc32(name.encode())
        try:
            block = measure_block(
                self._gradients[name], parameter, places, draws=draws, seed=seed, chunk=chunk, done=done
            )
        except NoCurvatureError as error:
            raise NoCurvatureError(f"The Hessian of {name} cannot be audited. {error}") from error
        wrong = int((~(block.peak.isfinite() & block.ones.isfinite())).sum())
        if wrong:
            raise AuditError(
                f"The Hessian of {name} is not finite on this batch, at {wrong} of {len(places)} numbers, so nothing "
                "can be said of it. Operations such as a square root have no second derivative at 0: add a small "
                "number there, or take another batch."
            )
        return block

    def _count(self, products: int) -> None:
        self._done += products
        if self._progress is not None:
            self._progress(self._done, self._total)
