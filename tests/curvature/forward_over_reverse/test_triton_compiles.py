"""Triton's compiler takes the kernels for a GPU that is not here: the interpreter runs what it would refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

# Runs by itself, because Triton decides at its first import whether it interprets.
SCRIPT = """
import importlib, json, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

WIDE = {"x", "g", "dg", "dx"}
COUNTS = {"rows", "numbers", "length", "channels", "col_blocks", "part", "parts"}
FLAGS = {"CHANNELS_LAST", "HAS_WEIGHT", "HAS_DG", "WANT_WEIGHT"}

for module, name, absent, *on in json.loads(sys.argv[1]):
    kernel = getattr(importlib.import_module(module), name)
    missing = set(absent.split(","))
    signature, constants = {}, {}
    for argument in kernel.arg_names:
        if argument in FLAGS or argument in missing or argument in ("ROWS", "COLS"):
            signature[argument] = "constexpr"
            constants[argument] = argument in on if argument in FLAGS else None if argument in missing else 32
        elif argument in COUNTS or argument == "share":
            signature[argument] = "fp32" if argument == "share" else "i32"
        else:
            signature[argument] = "*bf16" if argument in WIDE else "*fp32"
    made = triton.compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 80, 32))
    assert ".entry " + name in made.asm["ptx"]
    if name == "weight_norm_forward" and on:
        assert "div.rn.f32" in made.asm["ptx"] and "sqrt.rn.f32" in made.asm["ptx"]
"""

NORM = "sgdph_fx.curvature.forward_over_reverse.triton_batch_norm"
WEIGHT = "sgdph_fx.transform.triton_weight"


KERNELS = [
    (NORM, "batch_norm_sums", "", "HAS_DG", "CHANNELS_LAST"),
    (NORM, "batch_norm_sums", "dg"),
    (NORM, "batch_norm_backward", "", "HAS_DG", "HAS_WEIGHT", "CHANNELS_LAST"),
    (NORM, "batch_norm_backward", "dg,sum_dg,sum_dg_x,weight"),
    (WEIGHT, "weight_norm_forward", "", "WANT_WEIGHT"),
    (WEIGHT, "weight_norm_forward", "gain,out"),
    (WEIGHT, "weight_norm_backward", ""),
]
"""Module, kernel, arguments that are None, and constants that are true."""


def test_they_are_compiled_for_an_nvidia_gpu(tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", SCRIPT, json.dumps(KERNELS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
