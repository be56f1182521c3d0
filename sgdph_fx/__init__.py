"""sgdph-fx: make any PyTorch model ready for SGD with Partial Hessian, and train it so."""

from sgdph_fx import errors
from sgdph_fx.audits import Audit, AuditRow, audit
from sgdph_fx.checkpoint import Checkpoint, load, save
from sgdph_fx.checks import check_optimizer
from sgdph_fx.optim import (
    SGDPH,
    CapturedStep,
    LightningMixin,
    TrainerMixin,
    attach,
    compile_between_refreshes,
)
from sgdph_fx.pipeline import Prepared, analyze, param_groups, prepare
from sgdph_fx.plan.config import Config
from sgdph_fx.plan.plan import Plan
from sgdph_fx.report import Report
from sgdph_fx.rules.register import register_conv, register_norm, register_transparent
from sgdph_fx.transform.decouple import restore

__all__ = [
    "SGDPH",
    "Audit",
    "AuditRow",
    "CapturedStep",
    "Checkpoint",
    "Config",
    "LightningMixin",
    "Plan",
    "Prepared",
    "Report",
    "TrainerMixin",
    "analyze",
    "attach",
    "audit",
    "check_optimizer",
    "compile_between_refreshes",
    "errors",
    "load",
    "param_groups",
    "prepare",
    "register_conv",
    "register_norm",
    "register_transparent",
    "restore",
    "save",
]
