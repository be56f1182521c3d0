"""torch's own database of operations, about 700, with samples of inputs for each."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["database"]


def database() -> list[Any]:
    """Import it, which takes seconds, and leave torch's settings as they were."""
    # torch.backends is an object that stands before the module of that name.
    settings = torch.backends.disable_global_flags.__globals__
    allowed = settings[_FLAG]
    from torch.testing._internal.common_methods_invocations import op_db

    # The import forbids to set the flags of cuDNN and of other libraries, for all of the process.
    settings[_FLAG] = allowed
    operations: list[Any] = op_db
    return operations


_FLAG = "__allow_nonbracketed_mutation_flag"
