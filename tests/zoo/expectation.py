"""What an expectation says about one model, and the few rules that many of them share.

Every expectation is derived by reading torchvision's source, never by running this project. Counts are
written as the sums that the source spells out, so that a reader can check each term.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn
from torchvision.models import get_model

__all__ = ["Expectation", "Rule", "SecondOrder", "ends", "everything", "nothing", "squeeze_excitation", "zoo"]

Rule = Callable[[str], bool]


def everything(name: str) -> bool:
    """Every convolution of the model."""
    return True


def nothing(name: str) -> bool:
    """No convolution of the model."""
    return False


def ends(*suffixes: str) -> Rule:
    """The names that end so."""
    return lambda name: name.endswith(suffixes)


squeeze_excitation = ends(".fc1", ".fc2")


def zoo(model: str, **options: Any) -> Callable[[], nn.Module]:
    """A builder of torchvision's ``model`` with random weights."""
    return partial(get_model, model, weights=None, **options)


@dataclass(frozen=True)
class SecondOrder:
    """How many parameters of each role get Hessian treatment (DESIGN's section 4).

    ``norms`` is the number of norms with an affine: each has one weight and one bias.
    """

    norms: int = 0
    gain: int = 0
    bias: int = 0
    layer_scale: int = 0
    activation: int = 0

    def by_role(self) -> dict[str, int]:
        """Counts by the plan's names of roles, without the roles that do not occur."""
        counts = {
            "norm.weight": self.norms,
            "norm.bias": self.norms,
            "gain": self.gain,
            "bias": self.bias,
            "layer_scale": self.layer_scale,
            "activation": self.activation,
        }
        return {role: count for role, count in counts.items() if count}


@dataclass(frozen=True)
class Expectation:
    """What a person finds in one model's source.

    Args:
        model: A name for the test's label.
        build: Makes the model, with random weights.
        convolutions: Number of convolution modules.
        bare: Which of them no norm follows, under the policy ``see-through``.
        bare_count: How many those are; it keeps ``bare`` honest.
        why: Where in the source this can be seen.
        second_order: Counts under ``see-through``.
        other: Which parameters have the role ``other`` and stay first-order.
        other_count: How many those are.
        direct: The rule under ``direct`` where it differs.
        absorbing: The rule under ``absorbing`` where it differs.
        norms: Of some normalized convolutions, the norm that their output reaches first.
        via: Of some convolutions, words that the operations passed must contain, in this order, on the way to
            the norm or to what made the convolution bare.
            Case and underscores do not count; ``()`` means that nothing lies between.
        reasons: Of some bare convolutions, words that the reason must contain, compared in the same way.
        redundant_biases: Which convolutions have a bias that the norm right behind them absorbs.
        example: Makes example inputs for a recorded run, where that is quick.
        symbolic: Whether torch.fx traces the model without inputs.
    """

    model: str
    build: Callable[[], nn.Module]
    convolutions: int
    bare: Rule
    bare_count: int
    why: str
    second_order: SecondOrder
    other: Rule = nothing
    other_count: int = 0
    direct: Rule | None = None
    absorbing: Rule | None = None
    norms: Mapping[str, str] = field(default_factory=dict)
    via: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reasons: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    redundant_biases: Rule = nothing
    example: Callable[[], Any] | None = None
    symbolic: bool = True

    def rule(self, policy: str) -> Rule:
        """Which convolutions are bare under ``policy``."""
        special = {"direct": self.direct, "absorbing": self.absorbing}.get(policy)
        return special or self.bare
