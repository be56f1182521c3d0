"""What functions written in Python hide: parameters that they use inside, and graphs of gradients."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from sgdph_fx.curvature.autograd_graph import leaves_among, nodes, nodes_below
from sgdph_fx.curvature.custom_functions import CHECKPOINT, OF_LIBRARIES, full_name
from sgdph_fx.errors import NoCurvatureError
from sgdph_fx.optim.wording import listed

__all__ = ["Written", "dropped_graph", "hidden_use"]


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


def dropped_graph(parameter: Tensor, gradients: Iterable[Tensor], name: str) -> NoCurvatureError | None:
    """The error for a gradient that ``loss.backward(create_graph=True)`` left without its graph, or a part of it.

    Where there is none at all, any function of the reader's own may be the reason; else reentrant checkpoints above.

    Args:
        parameter: It has a gradient.
        gradients: Those of all parameters. The graphs of some lead to the functions that the loss has passed.
        name: The parameter's.
    """
    among = list(nodes(*(g for g in gradients if g.requires_grad)))
    if parameter.grad is not None and parameter.grad.requires_grad:
        above = [node for node in among if full_name(node) == CHECKPOINT]
        found = [CHECKPOINT] if any(parameter is leaf for leaf in leaves_among(nodes_below(*above))) else []
    else:
        names = dict.fromkeys(map(full_name, among))
        found = [f for f in names if f == CHECKPOINT or (f and not f.startswith(OF_LIBRARIES))]
    if not found:
        return None
    return NoCurvatureError(
        f"The gradient of parameter {name!r} has lost its graph. The loss passes {listed(found, 3)}, written in "
        "Python, whose backward may have kept none, as that of a reentrant checkpoint does. Call "
        "`optimizer.backward(loss)` in place of `loss.backward(create_graph=True)`: it passes such checkpoints, and "
        "names what it cannot pass."
    )
