"""What a visit asks: pairs of contenders, each of which differs in one thing."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["QUESTIONS"]

QUESTIONS: Mapping[str, tuple[str, str]] = {
    "Is it the Hessian? Ones against no Hessian": ("sgd-ph", "gradient"),
    "Rademacher against no Hessian": ("sgd-ph-rademacher", "gradient"),
    "Gauss-Newton against no Hessian, all at once": ("gauss-newton-all", "gradient-all"),
    "Gauss-Newton against no Hessian, one at a time": ("gauss-newton", "gradient"),
    "2×2 blocks against the diagonal": ("gauss-newton-affine", "gauss-newton-all"),
    "Signed average against absolute values": ("signed", "sgd-ph"),
    "Signed average against absolute values, both with the settings of ones": ("signed-as-ones", "sgd-ph"),
    "Negative as none against absolute values": ("clamped", "sgd-ph"),
    "Is it the normalized step? No Hessian against SGDM": ("gradient", "sgdm"),
    "The same, both decoupled": ("gradient", "sgdm-wn"),
    "All at once against one at a time": ("gradient-all", "gradient"),
    "No Hessian against Adam's step": ("gradient", "adam-channelwise"),
    "SGD-PH against SGDM at equal time": ("sgd-ph", "sgdm-longer"),
    "SGD-PH against AdamW": ("sgd-ph", "adamw"),
    "Does the recipe win? Muon by gradient against Muon and AdamW": ("muon-gradient-all", "muon-adamw"),
    "The same, one at a time": ("muon-gradient", "muon-adamw"),
    "Muon and ones against Muon by gradient, both with the settings of ones at higher rates": (
        "muon-ph-fast",
        "muon-gradient-as-ones",
    ),
    "Muon and Gauss-Newton against Muon by gradient, both with the settings of Gauss-Newton": (
        "muon-gauss-newton",
        "muon-gradient-all-as-slow-gauss-newton",
    ),
    "Muon and Gauss-Newton against Muon by gradient, both with the settings of Gauss-Newton at higher rates": (
        "muon-gauss-newton-fast",
        "muon-gradient-all-as-gauss-newton",
    ),
    "Muon and SGD-PH against Muon by gradient": ("muon-ph", "muon-gradient"),
    "Muon and Gauss-Newton against Muon by gradient": ("muon-gauss-newton", "muon-gradient-all"),
    "Muon and ones against Muon by gradient, higher rates": ("muon-ph-fast", "muon-gradient-fast"),
    "Muon and Gauss-Newton against Muon by gradient, higher rates": (
        "muon-gauss-newton-fast",
        "muon-gradient-all-fast",
    ),
    "Higher rates: does Muon by gradient win against Muon and AdamW?": (
        "muon-gradient-all-fast",
        "muon-adamw",
    ),
    "Higher rates: Muon by gradient against AdamW's step on the channel-wise": (
        "muon-gradient-all-fast",
        "muon-adamw-split",
    ),
    "The same, both with the settings of |g|": ("muon-gradient-all-fast", "muon-adamw-split-as-gradient"),
    "The same, AdamW at rates ten times as high": ("muon-gradient-all-fast", "muon-adamw-split-fast"),
    "Higher rates: Muon by gradient against SOAP": ("muon-gradient-all-fast", "soap"),
    "Ones against no Hessian, both with the settings of ones": ("sgd-ph", "gradient-as-ones"),
    "Gauss-Newton against no Hessian with the settings of ones": ("gauss-newton", "gradient-as-ones"),
    "Rademacher against no Hessian with the settings of ones": ("sgd-ph-rademacher", "gradient-as-ones"),
    "Rademacher against no Hessian, both with the settings of rademacher": (
        "sgd-ph-rademacher",
        "gradient-as-rademacher",
    ),
    "Gauss-Newton against no Hessian, both with the settings of Gauss-Newton": (
        "gauss-newton",
        "gradient-as-gauss-newton",
    ),
    "Rademacher against ones": ("sgd-ph-rademacher", "sgd-ph"),
    "Rademacher against ones, both with the settings of rademacher": (
        "sgd-ph-rademacher",
        "ones-as-rademacher",
    ),
    "Rademacher against ones, both with the settings of ones": ("rademacher-as-ones", "sgd-ph"),
    "Ones against no Hessian, both with the settings of rademacher": (
        "ones-as-rademacher",
        "gradient-as-rademacher",
    ),
    "Gauss-Newton against no Hessian, both with the settings of rademacher": (
        "gauss-newton-as-rademacher",
        "gradient-as-rademacher",
    ),
    "The mean of four draws against one": ("sgd-ph-rademacher-4", "sgd-ph-rademacher"),
    "Ones against no Hessian, both with a factor of at most 1 and the settings of ones": (
        "ones-bounded",
        "gradient-bounded",
    ),
    "A factor of at most 1 against none, by ones": ("ones-bounded", "sgd-ph"),
    "Decoupling alone, under Muon": ("muon-adamw-wn", "muon-adamw"),
    "Decoupling alone, under Muon, both with the settings of decoupled": (
        "muon-adamw-wn",
        "muon-adamw-as-wn",
    ),
    "Decoupling alone, under Muon, both with the settings of plain": ("muon-adamw-wn-as-plain", "muon-adamw"),
    "Decoupling alone, under SOAP": ("soap-wn", "soap"),
    "Decoupling alone, under SOAP, both with the settings of decoupled": ("soap-wn", "soap-as-wn"),
    "Decoupling alone, under AdamW": ("adamw-wn", "adamw"),
    "Decoupling alone, under SGDM": ("sgdm-wn", "sgdm"),
    "Muon by gradient against Muon and AdamW, both decoupled": ("muon-gradient", "muon-adamw-wn"),
    "On plain linear layers: Muon by gradient against Muon and AdamW": (
        "muon-gradient-all-fast-plain",
        "muon-adamw",
    ),
    "The same, AdamW with a rate of its own for the channel-wise": (
        "muon-gradient-all-fast-plain",
        "muon-adamw-split-plain",
    ),
    "The same, with that rate ten times as high": (
        "muon-gradient-all-fast-plain",
        "muon-adamw-split-fast-plain",
    ),
    "On plain linear layers: Muon by gradient against SOAP": ("muon-gradient-all-fast-plain", "soap"),
    "On plain linear layers, one at a time: Muon by gradient against Muon and AdamW": (
        "muon-gradient-fast-plain",
        "muon-adamw",
    ),
    "On plain linear layers: Muon and ones against Muon by gradient": (
        "muon-ph-fast-plain",
        "muon-gradient-fast-plain",
    ),
    "On plain linear layers: Muon and Gauss-Newton against Muon by gradient": (
        "muon-gauss-newton-fast-plain",
        "muon-gradient-all-fast-plain",
    ),
    "The same, both at the lower rates": ("muon-gauss-newton-plain", "muon-gradient-all-plain"),
    "On plain linear layers: Muon and ones against Muon by gradient at the lower rates": (
        "muon-ph-fast-plain",
        "muon-gradient-plain",
    ),
    "On plain linear layers: Muon and ones against Muon by gradient, both at the lower rates": (
        "muon-ph-plain",
        "muon-gradient-plain",
    ),
    "On plain linear layers, lower rates: Muon by gradient against Muon and AdamW": (
        "muon-gradient-plain",
        "muon-adamw",
    ),
    "The same, AdamW at rates of its own for the channel-wise": (
        "muon-gradient-plain",
        "muon-adamw-split-plain",
    ),
    "On plain linear layers, lower rates: Muon by gradient against SOAP": ("muon-gradient-plain", "soap"),
    "On plain linear layers: Muon and ones against Muon and AdamW": ("muon-ph-fast-plain", "muon-adamw"),
    "On plain linear layers: Muon and ones against SOAP": ("muon-ph-fast-plain", "soap"),
    "Muon by gradient against SOAP": ("muon-gradient", "soap"),
    "Muon and AdamW against SOAP": ("muon-adamw", "soap"),
    "Muon and AdamW against AdamW": ("muon-adamw", "adamw"),
}
"""Question → first and second contender; a positive difference is in favour of the first."""
