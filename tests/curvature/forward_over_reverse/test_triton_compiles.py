"""Triton's compiler takes the kernels for a GPU that is not here: the interpreter runs what it would refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from sgdph_fx.curvature.forward_over_reverse.operations.fused_attention import tile_of

# Runs by itself, because Triton decides at its first import whether it interprets.
SCRIPT = """
import importlib, json, re, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

HALVES = {"x", "g", "dg", "dx", "q", "dq", "k", "dk", "v", "dv", "by_k", "by_v"}
COUNTS = {
    "rows", "numbers", "length", "channels", "col_blocks", "part", "parts", "heads", "queries", "keys", "width",
    "count", "inner",
}
FLAGS = {
    "CHANNELS_LAST", "HAS_WEIGHT", "HAS_DG", "WANT_WEIGHT", "CAUSAL", "HAS_DQ", "HAS_DK", "HAS_DV",
    "CENTRED", "HAS_DS", "HAS_G", "HAS_DGV", "CURVED", "WANT_P",
}
TILES = ("ROWS", "COLS", "WIDTH", "BLOCK")

for capability, module, name, tile, absent, *on in json.loads(sys.argv[1]):
    kernel = getattr(importlib.import_module(module), name)
    missing = set(absent.split(","))
    signature, constants = {}, {}
    for argument in kernel.arg_names:
        if argument in FLAGS or argument in missing or argument in TILES:
            signature[argument] = "constexpr"
            constants[argument] = (
                argument in on if argument in FLAGS else None if argument in missing else tile.get(argument, 32)
            )
        elif argument in ("share", "scale"):
            signature[argument] = "fp32"
        elif argument in COUNTS or re.fullmatch("[a-z][0-2]|d?[xg]_(outer|inner)", argument):
            signature[argument] = "i32"
        else:
            signature[argument] = "*bf16" if argument in HALVES else "*fp32"
    options = {key: value for key, value in tile.items() if key not in TILES}
    target = GPUTarget("cuda", capability, 32)
    made = triton.compile(ASTSource(kernel, signature, constants), target=target, options=options)
    # What a block may use of shared memory on the smaller GPUs that have tensor cores for bfloat16.
    assert made.metadata.shared <= 99 * 1024, (capability, name, tile, made.metadata.shared)
    assert ".entry " + name in made.asm["ptx"]
    if name == "weight_norm_forward" and on:
        assert all(re.search(name + "[.]rn([.]ftz)?[.]f32", made.asm["ptx"]) for name in ("div", "sqrt"))
"""

NORM = "sgdph_fx.curvature.forward_over_reverse.triton_batch_norm"
WEIGHT = "sgdph_fx.transform.triton_weight"


ATTENTION = "sgdph_fx.curvature.forward_over_reverse.triton_attention"
ROWS = "sgdph_fx.curvature.forward_over_reverse.triton_kernels"
TANGENTS = ("HAS_DQ", "HAS_DK", "HAS_DV")

KERNELS: list[tuple[Any, ...]] = [
    (NORM, "batch_norm_sums", {}, "", "HAS_DG", "CHANNELS_LAST"),
    (NORM, "batch_norm_sums", {}, "dg"),
    (NORM, "batch_norm_backward", {}, "", "HAS_DG", "HAS_WEIGHT", "CHANNELS_LAST"),
    (NORM, "batch_norm_backward", {}, "dg,sum_dg,sum_dg_x,weight"),
    (WEIGHT, "weight_norm_forward", {}, "", "WANT_WEIGHT"),
    (WEIGHT, "weight_norm_forward", {}, "gain,out"),
    (WEIGHT, "weight_norm_backward", {}, ""),
    (ATTENTION, "attention_tangent", tile_of(64), "", *TANGENTS, "CAUSAL"),
    (ATTENTION, "attention_tangent", tile_of(128), "dq,dk", "HAS_DV"),
    (ATTENTION, "attention_tangent_by_queries", tile_of(64), "", *TANGENTS, "HAS_DG"),
    (ATTENTION, "attention_tangent_by_queries", tile_of(128), "", *TANGENTS, "HAS_DG", "CAUSAL"),
    (ATTENTION, "attention_tangent_by_queries", tile_of(64), "dq,dv,dg", "HAS_DK"),
    (ATTENTION, "attention_tangent_by_keys", tile_of(64), "", *TANGENTS, "HAS_DG", "CAUSAL"),
    (ATTENTION, "attention_tangent_by_keys", tile_of(128), "", *TANGENTS, "HAS_DG"),
    (ATTENTION, "attention_tangent_by_keys", tile_of(20), "dk,dv,dg", "HAS_DQ"),
    (ROWS, "gelu_backward", {}, "", "HAS_DG"),
    (ROWS, "layer_norm_forward", {}, "", "CENTRED", "HAS_WEIGHT"),
    (ROWS, "layer_norm_backward", {}, "", "CENTRED", "HAS_WEIGHT", "HAS_DG"),
    (ROWS, "attention_forward", {}, "", "CAUSAL", "HAS_DS", "WANT_P"),
    (ROWS, "attention_backward", {}, "", "HAS_DS", "HAS_G", "HAS_DGV", "CURVED", "WANT_P"),
]
"""Module, kernel, its tile where that matters, arguments that are None, and constants that are true."""

OTHERS: list[tuple[Any, ...]] = [
    (75, NORM, "batch_norm_sums", {}, "", "HAS_DG", "CHANNELS_LAST"),
    (90, ATTENTION, "attention_tangent_by_keys", tile_of(64), "", *TANGENTS, "HAS_DG"),
    (90, ATTENTION, "attention_tangent_by_queries", tile_of(128), "", *TANGENTS, "HAS_DG"),
]
"""Likewise for GPUs without products of bfloat16, and with products of groups of warps."""


def test_they_are_compiled_for_an_nvidia_gpu(tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", SCRIPT, json.dumps([*((80, *row) for row in KERNELS), *OTHERS])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
