"""What ``--output`` writes into its folder: all of it, or nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from sgdph_fx.plan.wording import first_few
from sgdph_fx.report.prepared import Prepared

from .errors import NotWrittenError
from .file_set import put_together, reserved
from .options import FILES

__all__ = ["save_tensors", "separate", "write", "write_reserved"]

GROUPS_VERSION = 1


def write(prepared: Prepared, folder: Path) -> None:
    """Write :data:`FILES` into ``folder``, replacing files of these names and leaving others alone.

    Raises:
        NotWrittenError: if the weights cannot be saved, the folder cannot be written, or another process writes there.
    """
    with reserved(folder, FILES):
        write_reserved(prepared, folder)


def write_reserved(prepared: Prepared, folder: Path) -> None:
    """The same, into a folder that is reserved already.

    Raises:
        NotWrittenError: as :func:`write`.
    """
    instead = "To have the report alone, leave out --output; torch.save in a script takes any state_dict."
    weights = separate(prepared.model.state_dict(), instead)
    report = prepared.report
    texts = (
        report.plan.to_json(),
        groups_json(prepared.param_groups),
        report.to_markdown(),
        report.to_html(),
    )

    def write_all(inside: Path) -> None:
        plan_file, groups_file, weights_file, report_file, page_file = (inside / name for name in FILES)
        for file, text in zip((plan_file, groups_file, report_file, page_file), texts, strict=True):
            file.write_text(text, encoding="utf-8")
        save_tensors(weights, weights_file)
        # safetensors creates its file for the owner alone; all of them should be as readable as any other file.
        weights_file.chmod(plan_file.stat().st_mode)

    put_together(folder, write_all)


def save_tensors(state: Mapping[str, Tensor], file: Path) -> None:
    """Write ``state`` as safetensors; a full disk is an OSError, as for every other file."""
    try:
        safetensors.torch.save_file(dict(state), file)
    except SafetensorError as error:
        raise OSError(str(error)) from error


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
        NotWrittenError: if ``state`` holds anything but tensors with numbers.
    """
    absent = [key for key, value in state.items() if isinstance(value, Tensor) and value.is_meta]
    if absent:
        raise NotWrittenError(
            f"{first_few(absent)} {'is' if len(absent) == 1 else 'are'} on the meta device, which holds no numbers to "
            "write. Build the model on another device; without --output the report comes all the same."
        )
    others = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise NotWrittenError(
            f"The state_dict holds more than tensors ({', '.join(others)}), which safetensors cannot. {instead}"
        )
    return {key: value.detach().clone(memory_format=torch.contiguous_format) for key, value in state.items()}
