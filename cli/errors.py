"""Every way in which ``sgdph-convert`` ends, and the exit code of each."""

from __future__ import annotations

import click

from sgdph_fx.errors import SgdphError, TraceError

__all__ = [
    "EXIT_CODES",
    "CliError",
    "ModelNotLoadedError",
    "NotTraceableError",
    "OtherPlanError",
    "RefusedError",
    "WeightsError",
    "explain",
]

EXIT_CODES = {
    0: "converted",
    1: "anything unexpected, or a plan that is not the one of `--check`",
    2: "usage: an option or argument that means nothing",
    3: "the model was not found, or could not be loaded",
    4: "the model could not be traced",
    5: "the weights could not be read, or don't fit the model",
    6: "the model or a rule was refused",
}


class CliError(click.ClickException):
    """An error that ends the command: one paragraph on standard error, and an exit code."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        # A message may quote what a person's own code raised, line breaks and all.
        super().__init__(" ".join(message.split()))


class OtherPlanError(CliError):
    """The code no longer matches the plan that was reviewed; what differs stands on standard output."""


class ModelNotLoadedError(CliError):
    """There is no model where it was looked for, or its own code failed."""

    exit_code = 3


class NotTraceableError(CliError):
    """The model's operations could not be followed."""

    exit_code = 4


class WeightsError(CliError):
    """The weights cannot be read, or belong to another model."""

    exit_code = 5


class RefusedError(CliError):
    """The model, or a rule for it, makes no sense to the library."""

    exit_code = 6


def explain(error: Exception) -> click.ClickException:
    """The error as a person should read it, with its exit code."""
    if isinstance(error, click.ClickException):
        return error
    if isinstance(error, TraceError):
        return NotTraceableError(str(error))
    if isinstance(error, SgdphError):
        return RefusedError(str(error))
    return CliError(f"Unexpected {type(error).__name__}: {error} (--traceback shows where)")
