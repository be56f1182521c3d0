"""The experiments are no part of the installed package: they are found in the checkout."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

# Appended, not put first: an installed sgdph_fx must win over the checkout's, which lacks `sgdph_fx.cli`.
sys.path.append(str(Path(__file__).parents[2]))

torch.set_num_threads(1)
