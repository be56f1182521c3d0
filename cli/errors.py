"""Every way in which ``sgdph-convert`` ends, and the exit code of each."""

from __future__ import annotations

import signal

import click

from sgdph_fx.errors import SgdphError, TraceError, printable

from .exit_codes import EXIT_CODES, UNEXPECTED

__all__ = [
    "EXIT_CODES",
    "CliError",
    "EndedError",
    "ModelNotLoadedError",
    "NotTraceableError",
    "NotWrittenError",
    "OtherPlanError",
    "RefusedError",
    "WeightsError",
    "ended_early",
    "explain",
    "lost_output",
]


class CliError(click.ClickException):
    """An error that ends the command: one paragraph on standard error, and an exit code."""

    exit_code = UNEXPECTED

    def __init__(self, message: str) -> None:
        # A message may quote what a person's own code raised, line breaks and all.
        super().__init__(printable(" ".join(message.split())))


class OtherPlanError(CliError):
    """The code no longer matches the plan that was reviewed; what differs stands on standard output."""

    exit_code = 1


class ModelNotLoadedError(CliError):
    """There is no model where it was looked for, or its own code failed."""

    exit_code = 3


class NotTraceableError(CliError):
    """The model's operations could not be followed."""

    exit_code = 4


class WeightsError(CliError):
    """Weights or a batch cannot be read, or belong to another model."""

    exit_code = 5


class RefusedError(CliError):
    """The model, a rule for it, or a plan makes no sense to the library."""

    exit_code = 6


class NotWrittenError(CliError):
    """A result could not be written."""

    exit_code = 7


class EndedError(CliError):
    """The model's own code ended the program."""


def explain(error: BaseException) -> click.ClickException:
    """The error as a person should read it, with its exit code."""
    if isinstance(error, click.ClickException):
        return error
    if isinstance(error, TraceError):
        return NotTraceableError(str(error))
    if isinstance(error, SgdphError):
        return RefusedError(str(error))
    if isinstance(error, SystemExit):
        return EndedError(
            f"The model's own code ended the program (SystemExit: {error}), so there is no result. Take the call of "
            "sys.exit, exit or quit out of it (--traceback shows where)."
        )
    return CliError(f"Unexpected {type(error).__name__}: {error} (--traceback shows where)")


def lost_output(error: OSError) -> NotWrittenError:
    """The error of a standard output that did not take everything."""
    return NotWrittenError(f"Standard output could not be written: {error.strerror or error}")


def ended_early(status: int) -> EndedError:
    """The error of a process that ended without saying how its work ended.

    Args:
        status: Its exit code, or the negative number of the signal that ended it.
    """
    if status >= 0:
        return EndedError(
            f"The model's own code ended the program with exit code {status}, by os._exit or the like, so there is no "
            "result. Take that call out of it."
        )
    number = signal.Signals(-status)
    memory = " The system does so when memory runs out." if number == signal.SIGKILL else ""
    return EndedError(f"The program was ended by the signal {number.name}, so there is no result.{memory}")
