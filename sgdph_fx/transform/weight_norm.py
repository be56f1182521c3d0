"""Weight normalization of one layer, for those who want only that."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from sgdph_fx.errors import ModelError
from sgdph_fx.rules.kinds import Conv
from sgdph_fx.rules.modules import rule_of
from sgdph_fx.transform.decouple import decouple
from sgdph_fx.transform.filters import Filters

__all__ = ["weight_norm"]

M = TypeVar("M", bound=nn.Module)


def weight_norm(module: M) -> M:
    r"""Rewrite the weight of one convolution or linear layer as W_f = γ_f V_f / ‖V_f‖, (8) of the paper.

    It stands in for ``torch.nn.utils.parametrizations.weight_norm``, and differs in three ways: the gain is
    ``(C_out,)``; it belongs to output channels in transposed convolutions and in groups, too; and a filter of zeros
    can be trained. :func:`sgdph_fx.restore` undoes it. No optimizer of this package is needed.

    Args:
        module: The layer, rewritten in place. Its output does not change.

    Returns:
        The same module, with the parameters ``direction``, of the weight's shape, and ``gain`` in place of ``weight``.

    Raises:
        ModelError: if it is no convolution and no linear layer, or has no plain weight; it has not been changed then.

    >>> layer = weight_norm(nn.ConvTranspose2d(4, 6, 3, groups=2))
    >>> [(name, tuple(p.shape)) for name, p in layer.named_parameters()]
    [('direction', (4, 3, 3, 3)), ('gain', (6,)), ('bias', (6,))]
    """
    rule = rule_of(module)
    name = rule.weight if isinstance(rule, Conv) else "weight" if isinstance(module, nn.Linear) else None
    if name is None:
        raise ModelError(
            f"weight_norm takes one convolution or linear layer; this is a {type(module).__name__}. Call it for each "
            "layer, or `prepare(model)` for the convolutions that no norm follows."
        )
    if module._parameters.get(name) is None:
        raise ModelError(
            f"This {type(module).__name__} has no plain parameter {name!r}: it is decoupled already, lazy, or computed "
            "by another reparameterization. Remove that first; `restore(module)` undoes this one."
        )
    transposed = isinstance(rule, Conv) and rule.transposed
    decouple(module, {name: Filters(transposed, getattr(module, "groups", 1))}, inplace=True)
    return module
