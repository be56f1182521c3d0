"""What modules of other libraries are: a table by qualified name, so that none of them has to be imported.

The table holds only what torch's own classes, which they often derive from, do not tell. A few kinds of norms that
people copy from project to project are known by the name of their class alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from torch import nn

from sgdph_fx.rules import moves, reshapes
from sgdph_fx.rules.kinds import Affine, Conv, Linear, Mixing, Norm, Rule, Transparent

__all__ = ["NAMED", "REVIEWED", "norm_by_class_name", "qualified_name"]

# Packages whose subclasses override forward and still do what the row of the ancestor says.
REVIEWED = ("torch.nn.", "torch.ao.nn.", "torchvision.ops.", "timm.layers.")

_LAYER_NORM_2D = Norm("layer", channels_first=True)
_RMS_NORM_2D = Norm("rms", channels_first=True)
_STANDARDIZED = Conv(2, standardized=True)
_SCALED_STANDARDIZED = Conv(2, gain="gain", standardized=True)
_LAYER_SCALE = Transparent(weight="gamma", role="layer_scale")
_FILTER_RESPONSE = Norm("instance", slopes=("tau",), centered=False)
# The numerator of a series-S EvoNorm is an activation, so that a gain does not cancel.
_EVO_S = Norm("group", slopes=("v",), centered=False, scale_free=False)


def _evo(norm: Norm) -> Callable[[nn.Module], Rule]:
    """EvoNorms whose ``apply_act`` is off leave out the statistics too."""
    return lambda module: norm if getattr(module, "apply_act", True) else Affine()


NAMED: dict[str, Rule | Callable[[nn.Module], Rule]] = {
    "torchvision.ops.misc.FrozenBatchNorm2d": Norm("frozen"),
    "torchvision.ops.misc.Permute": Transparent(reshapes.permute, shape_only=True),
    "torchvision.ops.stochastic_depth.StochasticDepth": Transparent(),
    "torchvision.ops.drop_block.DropBlock2d": Transparent(),
    "torchvision.ops.drop_block.DropBlock3d": Transparent(),
    "torchvision.ops.deform_conv.DeformConv2d": Conv(2, twice_differentiable=False),
    "torchvision.models.convnext.LayerNorm2d": _LAYER_NORM_2D,
    "timm.layers.norm.LayerNorm2d": _LAYER_NORM_2D,
    "timm.layers.norm.LayerNorm2dFp32": _LAYER_NORM_2D,
    "timm.layers.norm.LayerNormExp2d": _LAYER_NORM_2D,
    "timm.layers.norm.RmsNorm": Norm("rms"),
    "timm.layers.norm.RmsNormFp32": Norm("rms"),
    "timm.layers.norm.RmsNorm2d": _RMS_NORM_2D,
    "timm.layers.norm.RmsNorm2dFp32": _RMS_NORM_2D,
    "timm.layers.norm.SimpleNorm": Norm("rms"),
    "timm.layers.norm.SimpleNormFp32": Norm("rms"),
    "timm.layers.norm.SimpleNorm2d": _RMS_NORM_2D,
    "timm.layers.norm.SimpleNorm2dFp32": _RMS_NORM_2D,
    "timm.layers.norm_act.FrozenBatchNormAct2d": Norm("frozen"),
    "timm.layers.norm_act.LayerNormAct2d": _LAYER_NORM_2D,
    "timm.layers.norm_act.LayerNormAct2dFp32": _LAYER_NORM_2D,
    "timm.layers.inplace_abn.InplaceAbn": Norm("batch"),
    "timm.layers.evo_norm.EvoNorm2dB0": _evo(Norm("batch", slopes=("v",), centered=False)),
    "timm.layers.evo_norm.EvoNorm2dB1": _evo(Norm("batch", centered=False, scale_free=False)),
    "timm.layers.evo_norm.EvoNorm2dB2": _evo(Norm("batch", centered=False)),
    "timm.layers.evo_norm.EvoNorm2dS0": _evo(_EVO_S),
    "timm.layers.evo_norm.EvoNorm2dS0a": _EVO_S,
    "timm.layers.evo_norm.EvoNorm2dS1": _evo(_EVO_S),
    "timm.layers.evo_norm.EvoNorm2dS1a": _EVO_S,
    "timm.layers.evo_norm.EvoNorm2dS2": _evo(_EVO_S),
    "timm.layers.evo_norm.EvoNorm2dS2a": _EVO_S,
    "timm.layers.filter_response_norm.FilterResponseNormTlu2d": _FILTER_RESPONSE,
    "timm.layers.filter_response_norm.FilterResponseNormAct2d": _FILTER_RESPONSE,
    "timm.layers.std_conv.StdConv2d": _STANDARDIZED,
    "timm.layers.std_conv.StdConv2dSame": _STANDARDIZED,
    "timm.layers.std_conv.ScaledStdConv2d": _SCALED_STANDARDIZED,
    "timm.layers.std_conv.ScaledStdConv2dSame": _SCALED_STANDARDIZED,
    "timm.layers.layer_scale.LayerScale": _LAYER_SCALE,
    "timm.layers.layer_scale.LayerScale2d": _LAYER_SCALE,
    "timm.layers.grn.GlobalResponseNorm": Affine(),
    "timm.models.mlp_mixer.Affine": Affine(("alpha",), ("beta",)),
    "timm.layers.drop.DropPath": Transparent(),
    "timm.layers.drop.DropBlock2d": Transparent(),
    "timm.layers.blur_pool.BlurPool2d": Transparent(moves.over_last(2)),
    "timm.layers.space_to_depth.SpaceToDepth": Transparent(reshapes.space_to_depth, shape_only=True),
    "timm.layers.space_to_depth.DepthToSpace": Mixing(),
    "timm.layers.adaptive_avgmax_pool.AdaptiveAvgMaxPool2d": Transparent(moves.over_last(2)),
    "transformers.pytorch_utils.Conv1D": Linear(),
    "transformers.models.t5.modeling_t5.T5LayerNorm": Norm("rms"),
    "transformers.models.convnextv2.modeling_convnextv2.ConvNextV2GRN": Affine(),
}

# Classes by the end of their name, wherever they come from. What is known by name alone is not proved to cancel a
# gain, so that these count under the policy "see-through" and not under "absorbing".
_BY_CLASS_NAME: tuple[tuple[re.Pattern[str], Norm], ...] = (
    (re.compile(r"FrozenBatchNorm\dd$"), Norm("frozen")),
    (re.compile(r"(RMS|Rms)(Layer)?Norm(\dd|Fp32)?$"), Norm("rms")),
    (re.compile(r"(FilterResponseNorm\w*|^FRN\w*)$"), Norm("instance", centered=False)),
    (re.compile(r"^EvoNorm\w*B\d\w*$"), Norm("batch", centered=False)),
    (re.compile(r"^EvoNorm\w*$"), Norm("group", centered=False)),
    (re.compile(r"^(InPlace|Inplace)?ABN(Sync)?$"), Norm("batch")),
)
_SCALES = ("weight", "gamma", "scale", "g")
_SHIFTS = ("bias", "beta", "shift", "b")
_SLOPES = ("tau", "v", "v1")


def qualified_name(kind: type) -> str:
    """The name under which a class stands in the table."""
    return f"{kind.__module__}.{kind.__qualname__}"


def norm_by_class_name(module: nn.Module) -> Norm | None:
    """The norm that a module is by the name of its class, if what it owns looks like one: a number for each channel.

    >>> import torch
    >>> class LlamaRMSNorm(nn.Module):
    ...     def __init__(self): super().__init__(); self.weight = nn.Parameter(torch.ones(4))
    >>> norm_by_class_name(LlamaRMSNorm()).statistics
    'rms'
    """
    rule = next((norm for name, norm in _BY_CLASS_NAME if name.search(type(module).__name__)), None)
    if rule is None or any(True for child in module.children() for _ in child.parameters()):
        return None
    own = [name for name, parameter in module._parameters.items() if parameter is not None]
    if any(sum(size > 1 for size in module._parameters[name].shape) > 1 for name in own):  # type: ignore[union-attr]
        return None
    return replace(
        rule,
        weight=next((name for name in _SCALES if name in own), rule.weight),
        bias=next((name for name in _SHIFTS if name in own), rule.bias),
        slopes=tuple(name for name in _SLOPES if name in own),
        scale_free=False,
    )
