"""The code of each hint, with what it means and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["HINTS"]

HINTS: Mapping[str, str] = {
    "absorbed-bias": (
        "The norm that follows subtracts this bias again: it changes nothing, and its Hessian is rounding noise, which "
        "makes for the largest step of all. Build the convolution with `bias=False`."
    ),
    "already-prepared": (
        "The model came with convolutions that are decoupled already. They stay as they are, and the plan fits them. "
        "To decide anew, prepare `restore(model)`."
    ),
    "classifier-bias": (
        "The bias of a last linear layer: under cross-entropy the rows of its Hessian sum to zero, so the probe of "
        'ones sees no curvature at all. `variant="authors"` steps the last channel-wise parameter by SGD for this '
        'reason, but this bias is not the last one. Use `probe="rademacher"` or a rule `first-order`.'
    ),
    "frozen-norm": (
        "Norms that are frozen normalize nothing, and the convolutions before them are not decoupled: nothing in that "
        "part of the model gets Hessian treatment. Thaw the norm, or the convolution's weight, if it should."
    ),
    "hooked-weight": (
        "Gradient hooks on a weight stay on its direction and get the gradient by that; the gain, which is new, has "
        "none. A mask or a clip of the weight's gradient then no longer does what it did: keep such a convolution by a "
        "rule `keep`."
    ),
    "late-parameters": (
        "The model makes parameters when it runs for the first time, so they are in no group and would never be "
        "trained. Run it once on an input, then prepare it."
    ),
    "never-called": "Neither mode calls this convolution, so no gradient reaches it, and it is left as it is.",
    "never-reached": (
        "The run in training mode, as far as it was seen, uses these parameters nowhere: they get no gradient, and "
        "their turn in the Hessian cycle goes by unused. Freeze them, or remove the layer."
    ),
    "norm-without-affine": (
        "Norms without a scale and a shift normalize, but hold nothing that could get Hessian treatment. Build them "
        "with `affine=True` (`elementwise_affine=True`) if it should."
    ),
    "not-in-training": (
        "Only evaluation calls this convolution, so training would never change it; it is left as it is."
    ),
    "shift-bias": (
        "Biases that only layer or group norms read, as those of a transformer's residual stream: such a norm "
        "subtracts what all channels share, so the rows of their Hessian sum to zero, and the probe of ones sees no "
        "curvature at all. Their steps are then the largest of all, which harmed the training of a ViT. Set "
        '`max_preconditioner=1`, or use `probe="rademacher"`.'
    ),
    "train-eval-difference": (
        "The convolution is normalized in one mode and bare in the other. Training decides; see whether the model "
        "should differ so."
    ),
    "training-run-failed": (
        "The model does not run on the example inputs in training mode, so that evaluation mode decided. Pass inputs "
        "that training takes, or a callable."
    ),
    "unseen-convolutions": (
        "Convolutions ran inside a TorchScript module, where none can be decoupled. Pass the module that it was made "
        "from, and script after training."
    ),
    "unwrapped": (
        "The model came inside DataParallel, DistributedDataParallel or torch.compile. What is inside was taken, and "
        "is what comes back: wrap it again to train."
    ),
    "used-otherwise": (
        "The weight of this convolution module goes into an operation that is no convolution, so it is left as it is. "
        "Nothing to do, unless a convolution was meant."
    ),
    "zero-filter": (
        "Output filters of this decoupled convolution are zero, so they have no direction of their own: they get a "
        "random one and a gain of zero, and the direction learns nothing until the gain has left zero. Initialise "
        "them, unless zero was meant."
    ),
}
