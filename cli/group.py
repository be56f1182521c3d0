"""The command with its subcommands; ``sgdph-convert model.py`` means ``sgdph-convert convert model.py``."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from . import program
from .examples import unfilled_examples
from .exit_codes import INTERRUPTED
from .streams import code_of_lost_output, results

__all__ = ["ConvertByDefault"]

DEFAULT = "convert"


class ConvertByDefault(click.Group):
    """A group that hands everything which names no subcommand to ``convert``.

    If a module is called like a subcommand, write ``convert NAME`` or ``./NAME`` to mean the module.
    """

    def __init__(self, name: str | None = None, *, help: str | None = None, **extra: Any) -> None:
        super().__init__(name, help=unfilled_examples(help), **extra)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run as the program does, in a process of its own; with arguments, run them in this one."""
        if args or kwargs.keys() - {"prog_name"}:
            return self.main(*args, **kwargs)
        return program.main()

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run in this process; unless ``standalone_mode`` is off, end it by one of the exit codes."""
        run = functools.partial(super().main, args, prog_name, complete_var, standalone_mode=False, **extra)
        if not standalone_mode:
            return run()
        try:
            code = _exit_code(run)
            results().flush()
        except OSError as error:  # those of the work itself have been explained
            code = code_of_lost_output(error)
        sys.exit(code)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command before what names none."""
        own = {flag for parameter in self.get_params(ctx) for flag in parameter.opts}
        # While a shell completes the first word, that word may still become a subcommand.
        nothing_to_complete = not args and ctx.resilient_parsing
        if not nothing_to_complete and (not args or args[0] not in {*own, *self.commands}):
            self._refuse_what_convert_would_misread(ctx, args)
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def _refuse_what_convert_would_misread(self, ctx: click.Context, args: list[str]) -> None:
        """Two words in a row begin with a command, or with one that is misspelt."""
        if ctx.resilient_parsing or any(word.startswith("-") for word in args[:2]) or len(args) < 2:
            return
        names = ", ".join(sorted(self.commands))
        raise click.UsageError(
            f"{args[0]!r} is no command; there are {names}. "
            f"If it is a model, options alone may follow, not {args[1]!r}.",
            ctx,
        )

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Two lines: a model, or a command."""
        formatter.write_usage(ctx.command_path, "[OPTIONS] MODEL")
        formatter.write_usage(ctx.command_path, "COMMAND [ARGS]...", prefix=" " * len("Usage: "))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options of ``convert`` too, as it is what most people come for."""
        default = self.commands[DEFAULT]
        options = [p for p in default.params if isinstance(p, click.Option)]
        records = [record for option in options if (record := option.get_help_record(ctx)) is not None]
        with formatter.section("Options of convert, the default command"):
            formatter.write_dl(records)
        super().format_options(ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete commands, options of ``convert``, and files."""
        default = self.commands[DEFAULT].shell_complete(ctx, incomplete)
        return [*super().shell_complete(ctx, incomplete), *default, CompletionItem(incomplete, type="file")]


def _exit_code(run: Callable[[], Any]) -> int:
    try:
        code = run()
    except click.Abort as abort:
        interrupted = abort.__cause__
        return 128 + interrupted.number if isinstance(interrupted, program.Interrupted) else INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    return code if isinstance(code, int) else 0
