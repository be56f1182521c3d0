"""Write what was decided and converted into a folder: all of it, or nothing."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from sgdph_fx.pipeline import Prepared

from .errors import CliError

__all__ = ["FILES", "write"]

FILES = ("plan.json", "param_groups.json", "model.safetensors", "report.md", "report.html")
GROUPS_VERSION = 1


def write(prepared: Prepared, folder: Path) -> None:
    """Write :data:`FILES` into ``folder``, replacing files of these names and leaving others alone.

    They are written into a temporary folder inside first, and moved into place when all are complete,
    so that no file is ever half written.

    Raises:
        CliError: if the weights cannot be saved, or the folder cannot be written.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".sgdph-", dir=folder) as temporary:
            _write_all(prepared, Path(temporary))
            for name in FILES:
                os.replace(Path(temporary, name), folder / name)
    except BaseException as error:
        if is_new:
            _remove_if_empty(folder)
        if isinstance(error, OSError):
            raise CliError(f"{folder} could not be written: {error}") from error
        raise


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _write_all(prepared: Prepared, folder: Path) -> None:
    plan, groups, weights, report, page = (folder / name for name in FILES)
    plan.write_text(prepared.report.plan.to_json(), encoding="utf-8")
    groups.write_text(groups_json(prepared.param_groups), encoding="utf-8")
    instead = "To have the report alone, leave out --output; torch.save in a script takes any state_dict."
    safetensors.torch.save_file(separate(prepared.model.state_dict(), instead), weights)
    # safetensors creates its file for the owner alone; all of them should be as readable as any other file.
    weights.chmod(plan.stat().st_mode)
    report.write_text(prepared.report.to_markdown(), encoding="utf-8")
    page.write_text(prepared.report.to_html(), encoding="utf-8")


def groups_json(groups: Sequence[Mapping[str, Any]]) -> str:
    """The groups as JSON: parameter names in place of tensors, other keys as they are."""
    rows = [
        {**{key: value for key, value in group.items() if key != "param_names"}, "params": names(group)}
        for group in groups
    ]
    return json.dumps({"version": GROUPS_VERSION, "groups": rows}, indent=2) + "\n"


def names(group: Mapping[str, Any]) -> list[str]:
    """The names of a group's parameters, from ``param_names`` or from named parameters."""
    return list(group["param_names"]) if "param_names" in group else [name for name, _ in group["params"]]


def separate(state: Mapping[str, Any], instead: str) -> dict[str, Tensor]:
    """The tensors with storage of their own, as safetensors wants them: every key of ``state`` is kept.

    Args:
        state: As ``state_dict()`` returns it.
        instead: What a person may do where that is impossible, as a sentence.

    Raises:
        CliError: if ``state`` holds anything but tensors.
    """
    others = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise CliError(
            f"The state_dict holds more than tensors ({', '.join(others)}), which safetensors cannot. {instead}"
        )
    return {key: value.detach().clone(memory_format=torch.contiguous_format) for key, value in state.items()}
