"""Linear layers as candidates for gain and direction, which they get by a rule of yours alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from torch import nn

from sgdph_fx.analysis.conv_candidates import Names, obstacle_of
from sgdph_fx.analysis.sharing import Decision
from sgdph_fx.plan.entries import ConvolutionEntry
from sgdph_fx.rules.kinds import Linear
from sgdph_fx.rules.modules import rule_of
from sgdph_fx.transform.decouple import Decoupled, plain_class_of
from sgdph_fx.transform.filters import dotted

__all__ = ["linear_decisions"]


def linear_decisions(modules: Mapping[str, nn.Module], names: Names) -> Iterator[Decision]:
    """An entry for each linear layer with one matrix, bare, and not decoupled.

    Its output features take the place of output filters: W_f = γ_f V_f / ‖V_f‖ over each row, as in (8).
    """
    owners = Counter(id(p) for module in modules.values() for p in module._parameters.values())
    for path, module in modules.items():
        if not isinstance(rule_of(module), Linear) or not isinstance(module, nn.Linear):
            continue
        weight = module._parameters.get("weight")
        shape = tuple(module.weight.shape)
        shared = weight is not None and owners[id(weight)] > 1
        yield Decision(
            ConvolutionEntry(
                name=path,
                kind=plain_class_of(module).__name__,
                weight=names.first.get(id(weight), dotted(path, "weight")),
                shape=shape,
                out_channels=shape[0],
                transposed=False,
                groups=1,
                verdict="bare",
                norm=None,
                via=(),
                reason="bare: a linear layer, which only a rule decouples",
                decouple=False,
            ),
            _obstacle(module, weight, shared),
        )


def _obstacle(module: nn.Module, weight: nn.Parameter | None, shared: bool) -> str:
    if isinstance(module, Decoupled):
        return "decoupled already"
    if weight is None:
        return "its weight is computed by a reparameterization, which is left as it is"
    if shared:
        return "another module has the same weight"
    return obstacle_of(weight)
