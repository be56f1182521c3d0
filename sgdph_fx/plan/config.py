"""What a person may choose: the policy, and rules for single names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import get_args

from sgdph_fx.errors import ConfigError
from sgdph_fx.plan.entries import Action, Policy
from sgdph_fx.plan.hint_codes import HINTS

__all__ = ["Config"]


@dataclass(frozen=True)
class Config:
    """The choices behind a plan.

    Args:
        policy: When a convolution counts as normalized. ``"direct"``: its only consumer is a norm,
            through shape-only operations. ``"see-through"``: every path from it reaches a norm through
            operations that a positive gain on a channel commutes with. ``"absorbing"``: as see-through,
            and those norms keep statistics of each channel by itself, so that a gain provably cannot
            change the function.
        rules: Overrides by name, applied in order, so that a later one wins. Keys are module or parameter
            names, or globs (``"backbone.*"``); values are ``"keep"`` (leave the convolution as it is),
            ``"decouple"`` (rewrite it whatever its verdict), ``"first-order"`` or ``"second-order"``
            (treat the parameter, or all parameters of the module, so). A rule that matches
            nothing is an error, raised by :func:`sgdph_fx.analyze`, that names the nearest name.
        silence: Codes of hints that are not wanted; docs/messages.md lists them all.

    Raises:
        ConfigError: for a policy, an action or a hint's code that does not exist.
    """

    policy: Policy = "see-through"
    rules: Mapping[str, Action] = field(default_factory=dict)
    silence: Collection[str] = ()

    def __post_init__(self) -> None:
        if self.policy not in get_args(Policy):
            raise ConfigError(
                f"policy={self.policy!r} is not known; choose one of {', '.join(map(repr, get_args(Policy)))}."
            )
        for pattern, action in self.rules.items():
            if action not in get_args(Action):
                raise ConfigError(
                    f"rules[{pattern!r}]={action!r} is not known; "
                    f"choose one of {', '.join(map(repr, get_args(Action)))}."
                )
        for code in self.silence:
            if code not in HINTS:
                raise ConfigError(
                    f"silence names {code!r}, which is no hint's code, so nothing would be silenced; "
                    f"choose from {', '.join(map(repr, HINTS))}."
                )
