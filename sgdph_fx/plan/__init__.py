"""The decision about one model as data: what it holds, how you override it, how two of them differ."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgdph_fx.plan.config import Config
    from sgdph_fx.plan.plan import Plan

__all__ = ["Config", "Plan"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Import a class at its first use: the command line reads the options of a plan without torch."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{name.lower()}"), name)
