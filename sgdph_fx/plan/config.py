"""What you may choose: the policy, rules for names, and the hints that you do not want."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from sgdph_fx.errors import ConfigError
from sgdph_fx.plan.config_file import find_config, read_config
from sgdph_fx.plan.entries import RESERVED_OPTIONS, Action, Option, Policy
from sgdph_fx.plan.hint_codes import HINTS
from sgdph_fx.plan.selectors import Selector, selector_of
from sgdph_fx.plan.typed import is_finite

__all__ = ["Config", "Override"]


@dataclass(frozen=True, slots=True)
class Override:
    """One rule that has been read.

    Args:
        selector: What it matches.
        action: What to do with it; None to leave that as it is decided.
        options: Options of the parameter groups that matching parameters go to.
    """

    selector: Selector
    action: Action | None
    options: Mapping[str, Option]

    @property
    def pattern(self) -> str:
        """What it matches, as you wrote it."""
        return self.selector.pattern


@dataclass(frozen=True)
class Config:
    """The choices behind a plan.

    Args:
        policy: When a convolution counts as normalized. ``"direct"``: its only consumer is a norm,
            through shape-only operations. ``"see-through"``: every path from it reaches a norm through
            operations that a positive gain on a channel commutes with. ``"absorbing"``: as see-through,
            and those norms keep statistics of each channel by itself, so that a gain provably cannot
            change the function.
        rules: Overrides, applied in order, so that a later one wins. A key is the name of a module or a parameter,
            a glob (``"backbone.*"``), ``"re:"`` and a regular expression that the whole name fits, ``"type:"`` and
            a class name (``"type:LayerNorm"``, which its subclasses match too), ``"role:"`` and a parameter's role,
            or ``"kind:"`` and a glob for its kind. A module stands for all that lies in it. A value is ``"keep"``
            (leave the convolutions as they are), ``"decouple"`` (rewrite them whatever their verdict, or, where a
            rule matches none, the linear layers that it matches),
            ``"first-order"`` or ``"second-order"`` (treat the parameters that way), or a mapping with any option of
            a parameter group, such as ``lr``, ``weight_decay`` or ``lr_factor``, and one of these as ``action``.
            Parameters with different options go to different groups. A rule that matches nothing is an error,
            raised by :func:`sgdph_fx.analyze`.
        silence: Codes of hints that are not wanted; docs/messages.md lists them all.

    Raises:
        ConfigError: for a policy, an action, a role, an option or a hint's code that does not exist, or a regular
            expression that cannot be read.

    Example:
        >>> config = Config(rules={"head": "keep", "type:LayerNorm": {"weight_decay": 0.0}})
        >>> [override.pattern for override in config.overrides]
        ['head', 'type:LayerNorm']
    """

    policy: Policy = "see-through"
    rules: Mapping[str, Action | Mapping[str, Any]] = field(default_factory=dict)
    silence: Collection[str] = ()
    overrides: tuple[Override, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        if self.policy not in get_args(Policy):
            raise ConfigError(
                f"policy={self.policy!r} is not known; choose one of {', '.join(map(repr, get_args(Policy)))}."
            )
        if not isinstance(self.rules, Mapping):
            raise ConfigError(
                f"rules is a {type(self.rules).__name__}; pass a mapping of names to actions, such as "
                '{"layer4": "keep"}.'
            )
        if isinstance(self.silence, str) or not isinstance(self.silence, Collection):
            raise ConfigError(
                f"silence is {self.silence!r}; pass a list of codes, such as ['absorbed-bias']."
            )
        for code in self.silence:
            if not isinstance(code, str) or code not in HINTS:
                raise ConfigError(
                    f"silence names {code!r}, which is no hint's code, so nothing would be silenced; "
                    f"choose from {', '.join(map(repr, HINTS))}."
                )
        overrides = tuple(_override(pattern, value) for pattern, value in self.rules.items())
        object.__setattr__(self, "overrides", overrides)

    @classmethod
    def from_file(cls, path: str | Path) -> Config:
        """Read a configuration file: ``sgdph.toml``, or ``[tool.sgdph]`` in a ``pyproject.toml``.

        Args:
            path: The file. In a file named ``pyproject.toml`` the table ``[tool.sgdph]`` is read, in any other the
                whole file, with the keys ``policy`` and ``silence`` and a table ``[rules]``.

        Raises:
            ConfigError: if the file cannot be read, or something in it means nothing; the message names the line.
        """
        return read_config(Path(path), cls)

    @classmethod
    def load(cls, start: str | Path = ".") -> Config:
        """Find and read the configuration of a project.

        Args:
            start: A folder. It and the folders around it are searched for a ``sgdph.toml``, or a
                ``pyproject.toml`` with a table ``[tool.sgdph]``; the nearest one counts.

        Returns:
            What the file says, or the defaults where there is none.

        Raises:
            ConfigError: as :meth:`from_file`.
        """
        found = find_config(Path(start))
        return cls() if found is None else cls.from_file(found)


def _override(pattern: str, value: object) -> Override:
    selector = selector_of(pattern)
    if not isinstance(value, Mapping):
        return Override(selector, _action(pattern, value), {})
    options = dict(value)
    action = options.pop("action", None)
    for key, option in options.items():
        _require_option(pattern, key, option)
    if action is None and not options:
        raise ConfigError(
            f"rules[{pattern!r}] is empty; give it an action or an option of a parameter group."
        )
    return Override(selector, None if action is None else _action(pattern, action), options)


def _action(pattern: str, value: object) -> Action:
    for action in get_args(Action):
        if value == action:
            known: Action = action
            return known
    raise ConfigError(
        f"rules[{pattern!r}]={value!r} is not known; choose one of {', '.join(map(repr, get_args(Action)))}, "
        "or a mapping with options of a parameter group."
    )


def _require_option(pattern: str, key: object, value: object) -> None:
    if not isinstance(key, str) or key in RESERVED_OPTIONS:
        raise ConfigError(
            f"rules[{pattern!r}] sets {key!r}, which a parameter group says about itself; options are what an "
            "optimizer reads, such as lr or weight_decay."
        )
    plain = isinstance(value, bool | str | None) or is_finite(value)
    numbers = isinstance(value, list | tuple) and all(map(is_finite, value))
    if not (plain or numbers):
        raise ConfigError(
            f"rules[{pattern!r}] sets {key} to {value!r}; an option is a finite number, a text, true or false, or "
            "a list of numbers."
        )
