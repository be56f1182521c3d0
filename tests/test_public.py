"""The public surface, written down by hand: taking a name away breaks somebody's training script."""

from importlib.metadata import version

import pytest

import sgdph_fx
from sgdph_fx import errors

PUBLIC = [
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

ERRORS = {
    "SgdphError": Exception,
    "ConfigError": "SgdphError",
    "ModelError": "SgdphError",
    "NotAModuleError": "ModelError",
    "ScriptedModelError": "ModelError",
    "UninitializedModelError": "ModelError",
    "NonFiniteWeightError": "ModelError",
    "NothingToTrainError": "ModelError",
    "UncopyableModelError": "ModelError",
    "ModelChangedError": "SgdphError",
    "TraceError": "SgdphError",
    "PlanError": "SgdphError",
    "PlanFormatError": "PlanError",
    "PlanMismatchError": "PlanError",
    "RewriteError": "SgdphError",
    "CheckpointError": "SgdphError",
    "AuditError": "SgdphError",
    "OptimizerError": "SgdphError",
    "StaleOptimizerError": "OptimizerError",
    "NoCurvatureError": "OptimizerError",
    "CaptureError": "OptimizerError",
}


def test_the_public_names_are_these() -> None:
    assert sgdph_fx.__all__ == PUBLIC
    assert [name for name in PUBLIC if not hasattr(sgdph_fx, name)] == []


def test_the_version_is_that_of_the_installed_package() -> None:
    assert sgdph_fx.__version__ == version("sgdph-fx")
    assert "__version__" in dir(sgdph_fx)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sgdph_fx.nothing  # noqa: B018


def test_the_exceptions_form_this_tree() -> None:
    assert sorted(errors.__all__) == sorted(ERRORS)
    for name, parent in ERRORS.items():
        base = getattr(errors, parent) if isinstance(parent, str) else parent
        assert base in getattr(errors, name).__bases__


def test_the_tree_in_the_docstring_is_the_real_one() -> None:
    drawn = [
        line.split("``")[1] for line in (errors.__doc__ or "").splitlines() if line.lstrip().startswith("*")
    ]
    assert sorted(drawn) == sorted(ERRORS)
