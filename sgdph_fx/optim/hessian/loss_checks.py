"""What a loss must be before its backward pass begins, and what went wrong if that pass fails."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from sgdph_fx.errors import OptimizerError, StaleOptimizerError

__all__ = ["Addresses", "check_loss", "graph_errors_explained", "no_such_parameter", "refuse_inference_mode"]


def check_loss(loss: object) -> Tensor:
    """Refuse what has no gradient.

    Raises:
        OptimizerError: saying what was passed instead of one real number with a graph.
    """
    if not isinstance(loss, Tensor):
        raise OptimizerError(
            f"backward() takes the loss as a tensor, but got {type(loss).__name__}; pass it before `.item()`."
        )
    if loss.numel() != 1:
        raise OptimizerError(
            f"backward() takes a loss of one number, but got shape {tuple(loss.shape)}; "
            "reduce it first, with `.mean()` or `.sum()`."
        )
    if loss.is_complex():
        raise OptimizerError(f"backward() takes a real loss, but got {loss.dtype}; take `.real` or `.abs()`.")
    if not loss.requires_grad:
        raise OptimizerError(
            "The loss requires no gradient: it was computed under `torch.no_grad()` or "
            "`torch.inference_mode()`, detached on the way, or from frozen parameters alone."
        )
    return loss


def refuse_inference_mode(what: str) -> None:
    """Refuse to work under ``torch.inference_mode()``, which keeps no graph and spoils what is made in it.

    Raises:
        OptimizerError: if that mode is on.
    """
    if torch.is_inference_mode_enabled():
        raise OptimizerError(
            f"{what} was called under `torch.inference_mode()`, where autograd does not work and new tensors "
            "cannot be trained later. Call it outside of that mode; `torch.no_grad()` is fine around `step()`."
        )


def no_such_parameter(count: int) -> StaleOptimizerError:
    """The error for a loss that no step could change; the optimizer holds ``count`` parameters."""
    return StaleOptimizerError(
        f"The loss depends on none of the {count} parameters of this optimizer, so no step could "
        "change it. Most likely it was built before the model was prepared or copied: build it from the "
        "`param_groups` of the model that computes the loss."
    )


@contextmanager
def graph_errors_explained() -> Iterator[None]:
    """Put torch's two complaints about a graph that is no longer usable into words that say what to do.

    Raises:
        OptimizerError: if the graph was freed by an earlier backward pass, or something in it was changed.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, OptimizerError):
            raise
        if "backward through the graph a second time" in str(error):
            raise OptimizerError(
                "The graph of this loss has been used before: an earlier backward pass freed it. If the model "
                "carries a state from one step to the next, detach or reset it. Otherwise add the losses that share "
                "the graph and call `optimizer.backward` once, or pass `retain_graph=True` to all calls but the "
                "last. Gradients may be written in part: call `optimizer.zero_grad()`."
            ) from error
        if "modified by an inplace operation" in str(error):
            raise OptimizerError(
                "A tensor that the Hessian needs was changed after the forward pass, most often a parameter: SAM "
                "moves the parameters back before its step. Call `optimizer.backward(loss)` in place of "
                "`loss.backward(create_graph=True)`; it takes the Hessian at once. Otherwise look for an "
                "in-place operation in the model. No parameter has been changed."
            ) from error
        raise


class Addresses:
    """Where the parameters lay after the last step that differentiated gradients.

    SAM often puts parameters back by ``p.data = ...``, which autograd does not notice: the graph of the gradients was
    made at other values than those that it would be differentiated at.
    """

    def __init__(self) -> None:
        self._kept: dict[int, int] = {}

    def keep(self, params: Iterable[Tensor]) -> None:
        """Remember where the parameters are."""
        self._kept = {id(p): _address(p) for p in params}

    def refuse_moved(self, params: Iterable[Tensor]) -> None:
        """Refuse parameters that lie elsewhere than when they were last kept; they are then kept as they are.

        Raises:
            OptimizerError: if there are any.
        """
        params = list(params)
        moved = any(self._kept.get(id(p), _address(p)) != _address(p) for p in params)
        self.keep(params)
        if moved:
            raise OptimizerError(
                "Parameters have been given other memory since the last step, as SAM does when it puts them back, so "
                "their gradients' graph may belong to other values. Call `optimizer.backward(loss)` in place of "
                "`loss.backward(create_graph=True)`. If you have just moved the model or loaded it with "
                "`assign=True`, repeat the step. No parameter has been changed."
            )


def _address(parameter: Tensor) -> int:
    return 0 if parameter.is_meta else parameter.data_ptr()
