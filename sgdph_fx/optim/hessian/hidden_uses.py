"""Parameters that a function written in Python uses inside, so that they do not show in the graph of the loss."""

from __future__ import annotations

from torch import Tensor

from sgdph_fx.curvature.autograd_graph import nodes
from sgdph_fx.curvature.custom_functions import full_name
from sgdph_fx.errors import NoCurvatureError
from sgdph_fx.optim.wording import listed

__all__ = ["Written", "hidden_use"]


class Written:
    """Whether the gradient of a parameter has been written since this was made."""

    def __init__(self, parameter: Tensor) -> None:
        self._parameter, self._gradient = parameter, parameter.grad
        self._version = self._version_now()

    def _version_now(self) -> int:
        gradient = self._parameter.grad
        return -1 if gradient is None or gradient.is_inference() else gradient._version

    def __bool__(self) -> bool:
        return self._parameter.grad is not self._gradient or self._version_now() != self._version


def hidden_use(loss: Tensor, name: str) -> NoCurvatureError | None:
    """The error for a parameter that got a gradient though ``loss`` does not depend on it, as far as its graph shows.

    Torch's own functions are no cause: those of data-parallel training write what other processes have found.
    """
    names = dict.fromkeys(full_name(node) for node in nodes(loss))
    found = [function for function in names if function and not function.startswith("torch.")]
    if not found:
        return None
    return NoCurvatureError(
        f"Parameter {name!r} got a gradient, but the graph of the loss does not lead to it: a function written in "
        f"Python, {listed(found, 3)}, uses it inside and runs autograd by itself. Such gradients cannot be "
        "differentiated again. Pass the parameter to the function as an argument and return its gradient, or put it "
        "into a group with order=1."
    )
