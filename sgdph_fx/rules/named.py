"""What modules of other libraries are: a table by qualified name, so that none of them has to be imported.

Only what torch's own classes, which they often derive from, do not tell stands here.
"""

from __future__ import annotations

from sgdph_fx.rules import layout
from sgdph_fx.rules.kinds import Affine, Conv, Linear, Mixing, Norm, Rule, Transparent

__all__ = ["NAMED"]

_LAYER_NORM_2D = Norm("layer", channels_first=True)
_RMS_NORM_2D = Norm("rms", channels_first=True)
_STANDARDIZED = Conv(2, standardized=True)
_SCALED_STANDARDIZED = Conv(2, gain="gain", standardized=True)
_LAYER_SCALE = Transparent(weight="gamma", role="layer_scale")

NAMED: dict[str, Rule] = {
    "torchvision.ops.misc.FrozenBatchNorm2d": Norm("frozen"),
    "torchvision.ops.misc.Permute": Transparent(layout.permute, shape_only=True),
    "torchvision.ops.stochastic_depth.StochasticDepth": Transparent(),
    "torchvision.ops.drop_block.DropBlock2d": Transparent(),
    "torchvision.ops.drop_block.DropBlock3d": Transparent(),
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
    "timm.layers.blur_pool.BlurPool2d": Transparent(),
    "timm.layers.space_to_depth.SpaceToDepth": Transparent(shape_only=True),
    "timm.layers.space_to_depth.DepthToSpace": Mixing(),
    "timm.layers.adaptive_avgmax_pool.AdaptiveAvgMaxPool2d": Transparent(),
    "transformers.pytorch_utils.Conv1D": Linear(),
    "transformers.models.t5.modeling_t5.T5LayerNorm": Norm("rms"),
    "transformers.models.llama.modeling_llama.LlamaRMSNorm": Norm("rms"),
    "transformers.models.convnextv2.modeling_convnextv2.ConvNextV2GRN": Affine(),
    "transformers.models.detr.modeling_detr.DetrFrozenBatchNorm2d": Norm("frozen"),
}
