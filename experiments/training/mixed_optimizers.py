"""Several optimizers as one, and Muon on weights that are not matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

__all__ = ["CombinedOptimizer", "MatrixMuon", "OptimizerLike", "split_matrices"]


class OptimizerLike(Protocol):
    """The part of ``torch.optim.Optimizer`` that the training loop uses."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Parameters with their hyper-parameters."""

    def zero_grad(self) -> None:
        """Drop all gradients."""

    def step(self) -> Any:
        """Take one step."""

    def state_dict(self) -> dict[str, Any]:
        """Give all state."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the state back."""


class CombinedOptimizer:
    """Optimizers of different parameters that step together.

    Args:
        optimizers: Their order is the order of their groups.
    """

    def __init__(self, *optimizers: OptimizerLike) -> None:
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all optimizers."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def step(self) -> None:
        """Take one step with each optimizer."""
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Give the state of each optimizer."""
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Give each optimizer its state back."""
        for optimizer, own in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(own)


class MatrixMuon:
    """``torch.optim.Muon``, which takes matrices only, on weights of any shape: one row for each output.

    Muon updates matrices that share their memory with the weights. The order of a matrix's columns is that of
    the memory, and does not matter: an orthogonalized matrix with permuted columns is the permuted orthogonalized
    matrix.

    Args:
        weights: At least two-dimensional, contiguous or channels last.
        options: Muon's hyper-parameters.

    Raises:
        ValueError: if a weight cannot be seen as a matrix without a copy.
    """

    def __init__(self, weights: Sequence[nn.Parameter], **options: Any) -> None:
        self._weights = list(weights)
        self._matrices = [nn.Parameter(_as_matrix(w.detach(), w)) for w in self._weights]
        for weight, matrix in zip(self._weights, self._matrices, strict=True):
            if weight.data_ptr() != matrix.data_ptr():
                raise ValueError(f"a weight of strides {weight.stride()} cannot be seen as a matrix")
        self._muon = torch.optim.Muon(self._matrices, adjust_lr_fn="match_rms_adamw", **options)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Muon's groups, whose parameters are the matrices."""
        return self._muon.param_groups

    def zero_grad(self) -> None:
        """Drop the gradients of the weights."""
        for weight in self._weights:
            weight.grad = None

    def step(self) -> None:
        """Take one step with every weight that has a gradient."""
        for weight, matrix in zip(self._weights, self._matrices, strict=True):
            matrix.grad = None if weight.grad is None else _as_matrix(weight.grad, weight)
        self._muon.step()  # type: ignore[no-untyped-call]

    def state_dict(self) -> dict[str, Any]:
        """Give Muon's state."""
        state: dict[str, Any] = self._muon.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Give Muon its state back."""
        self._muon.load_state_dict(state)


def split_matrices(net: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split the trainable parameters into weights of hidden layers, and all others.

    Returns:
        The weights of convolutions and linear layers without the last linear layer, of decoupled ones the directions;
        everything else.
    """
    layers = [m for m in net.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear)]
    linears = [m for m in layers if isinstance(m, nn.Linear)]
    hidden = {id(_own_weight(m)) for m in layers if not linears or m is not linears[-1]}
    trained = [p for p in net.parameters() if p.requires_grad]
    return [p for p in trained if id(p) in hidden], [p for p in trained if id(p) not in hidden]


def _own_weight(layer: nn.Module) -> object:
    own = dict(layer.named_parameters(recurse=False))
    return own.get("direction", own.get("weight"))


def _as_matrix(tensor: Tensor, weight: Tensor) -> Tensor:
    """See ``tensor`` as a matrix, its columns in the order of ``weight``'s memory."""
    if weight.is_contiguous():
        return tensor.flatten(1)
    return tensor.movedim(1, -1).flatten(1)
