"""The decision about one model as data: what it holds, how you override it, how two of them differ."""

from sgdph_fx.plan.config import Config
from sgdph_fx.plan.plan import Plan

__all__ = ["Config", "Plan"]
