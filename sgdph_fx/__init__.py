"""sgdph-fx: make any PyTorch model ready for SGD with Partial Hessian, and train it that way.

A public name is imported when it is first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgdph_fx import errors
    from sgdph_fx.audits import Audit, AuditRow, audit
    from sgdph_fx.checks import check_optimizer
    from sgdph_fx.curvature import Coverage, coverage
    from sgdph_fx.optim import (
        SGDPH,
        CapturedStep,
        LightningMixin,
        TrainerMixin,
        attach,
        compile_between_refreshes,
    )
    from sgdph_fx.pipeline import analyze, param_groups, prepare
    from sgdph_fx.plan.assign import Assignment, assign
    from sgdph_fx.plan.checkpoint import Checkpoint, load, save
    from sgdph_fx.plan.config import Config
    from sgdph_fx.plan.plan import Plan
    from sgdph_fx.plan.schemes import Scheme, SchemeContext, SchemeRow, register_scheme
    from sgdph_fx.report import Report
    from sgdph_fx.report.prepared import Prepared
    from sgdph_fx.rules.register import register_conv, register_norm, register_transparent
    from sgdph_fx.transform.decouple import restore
    from sgdph_fx.transform.weight_norm import weight_norm

__all__ = [
    "SGDPH",
    "Assignment",
    "Audit",
    "AuditRow",
    "CapturedStep",
    "Checkpoint",
    "Config",
    "Coverage",
    "LightningMixin",
    "Plan",
    "Prepared",
    "Report",
    "Scheme",
    "SchemeContext",
    "SchemeRow",
    "TrainerMixin",
    "analyze",
    "assign",
    "attach",
    "audit",
    "check_optimizer",
    "compile_between_refreshes",
    "coverage",
    "errors",
    "load",
    "param_groups",
    "prepare",
    "register_conv",
    "register_norm",
    "register_scheme",
    "register_transparent",
    "restore",
    "save",
    "weight_norm",
]

_HOMES = {
    "SGDPH": "optim",
    "Assignment": "plan.assign",
    "Audit": "audits",
    "AuditRow": "audits",
    "CapturedStep": "optim",
    "Checkpoint": "plan.checkpoint",
    "Config": "plan.config",
    "Coverage": "curvature",
    "LightningMixin": "optim",
    "Plan": "plan.plan",
    "Prepared": "report.prepared",
    "Report": "report",
    "Scheme": "plan.schemes",
    "SchemeContext": "plan.schemes",
    "SchemeRow": "plan.schemes",
    "TrainerMixin": "optim",
    "analyze": "pipeline",
    "assign": "plan.assign",
    "attach": "optim",
    "audit": "audits",
    "check_optimizer": "checks",
    "compile_between_refreshes": "optim",
    "coverage": "curvature",
    "load": "plan.checkpoint",
    "param_groups": "pipeline",
    "prepare": "pipeline",
    "register_conv": "rules.register",
    "register_norm": "rules.register",
    "register_scheme": "plan.schemes",
    "register_transparent": "rules.register",
    "restore": "transform.decouple",
    "save": "plan.checkpoint",
    "weight_norm": "transform.weight_norm",
}
"""The module of each public name; ``tests/test_imports.py`` holds it to the imports above."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Import a public name, the version, or a module of the package, at its first use."""
        if name == "__version__":
            value = import_module("importlib.metadata").version("sgdph-fx")
        elif name in _HOMES:
            value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        else:
            value = _module(name)
        globals()[name] = value
        return value

    def _module(name: str) -> Any:
        full = f"{__name__}.{name}"
        try:
            return import_module(full)
        except ModuleNotFoundError as error:
            if error.name != full:
                raise
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, "__version__"})
