"""Every exception that sgdph-fx raises on purpose.

* ``SgdphError``
    * ``ConfigError``                  a rule or policy that means nothing here
    * ``ModelError``                   the model cannot be treated as it is
        * ``NotAModuleError``          it is no ``nn.Module``
        * ``ScriptedModelError``       it is compiled to TorchScript
        * ``UninitializedModelError``  a lazy layer has no shape yet
        * ``NonFiniteWeightError``     a parameter holds NaN or infinity
        * ``NothingToTrainError``      there is no trainable parameter
        * ``UncopyableModelError``     ``copy.deepcopy`` fails on it
    * ``ModelChangedError``            running the model changed it, and it could not be put back
    * ``TraceError``                   the model could not be traced
    * ``PlanError``
        * ``PlanFormatError``          the JSON is no plan that this version reads
        * ``PlanMismatchError``        the plan was made for another model
    * ``RewriteError``                 the rewritten model does not compute the same
    * ``CheckpointError``              a saved training cannot be written or read
    * ``AuditError``                   the Hessian cannot be audited on this batch
    * ``OptimizerError``
        * ``StaleOptimizerError``      it holds parameters that the model no longer has
        * ``NoCurvatureError``         the gradient carries no graph to differentiate again
        * ``CaptureError``             a step cannot be captured as a CUDA graph

Each message says what was found, where, why it matters, and what to do about it.
"""

__all__ = [
    "AuditError",
    "CaptureError",
    "CheckpointError",
    "ConfigError",
    "ModelChangedError",
    "ModelError",
    "NoCurvatureError",
    "NonFiniteWeightError",
    "NotAModuleError",
    "NothingToTrainError",
    "OptimizerError",
    "PlanError",
    "PlanFormatError",
    "PlanMismatchError",
    "RewriteError",
    "ScriptedModelError",
    "SgdphError",
    "StaleOptimizerError",
    "TraceError",
    "UncopyableModelError",
    "UninitializedModelError",
]


def printable(text: str) -> str:
    r"""``text`` with every character escaped that a terminal would obey or hide; line breaks stay.

    Names come from people's models, and may hold escape codes, or marks that turn the direction of writing.

    >>> print(printable("\x1b[31mred\u202e"))
    \x1b[31mred\u202e
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException) -> str:
    r"""The first line of an error's message; the name of its class where it has none.

    >>> first_line(ValueError("what\nwhy")), first_line(ValueError())
    ('what', 'ValueError')
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class SgdphError(Exception):
    """The root: catch it to catch everything that sgdph-fx raises on purpose."""

    def __str__(self) -> str:
        return printable(super().__str__())


class ConfigError(SgdphError, ValueError):
    """A configuration that means nothing for this model: an unknown policy, a rule that matches no name."""


class ModelError(SgdphError, ValueError):
    """The model cannot be treated as it is; it has been left untouched."""


class NotAModuleError(ModelError, TypeError):
    """What was passed as a model is not a ``torch.nn.Module``."""


class ScriptedModelError(ModelError):
    """The model is compiled to TorchScript; the module it was scripted from is needed."""


class UninitializedModelError(ModelError):
    """A lazy module has not seen an input yet, so its parameters have no shape."""


class NonFiniteWeightError(ModelError):
    """A parameter holds NaN or infinity, for which no direction and gain exist."""


class NothingToTrainError(ModelError):
    """The model has no parameter, or none that requires a gradient."""


class UncopyableModelError(ModelError):
    """The model cannot be deep-copied, so only ``inplace=True`` can treat it."""


class ModelChangedError(SgdphError, RuntimeError):
    """Running the model changed it in a way that could not be undone; the message says what stayed changed."""


class TraceError(SgdphError):
    """The model's operations could not be followed; the message names the source line where it stopped."""


class PlanError(SgdphError, ValueError):
    """A saved plan cannot be used."""


class PlanFormatError(PlanError):
    """The text is not a plan, or one written by a version that this one does not read."""


class PlanMismatchError(PlanError):
    """The plan was made for a model that differs from this one; the message lists the differences."""


class RewriteError(SgdphError):
    """The rewritten model does not compute what the original computes; the original has been left untouched."""


class CheckpointError(SgdphError, ValueError):
    """A saved training cannot be written or read, or does not fit the model; nothing has been changed."""


class AuditError(SgdphError, ValueError):
    """The Hessian cannot be audited: the batch, the loss or the parameters are not fit for it."""


class OptimizerError(SgdphError, ValueError):
    """The optimizer cannot do what was asked of it."""


class StaleOptimizerError(OptimizerError):
    """The optimizer holds parameters that are not the model's: it was built before the model was prepared."""


class NoCurvatureError(OptimizerError, RuntimeError):
    """The gradients carry no graph, so there is nothing to differentiate a second time."""


class CaptureError(OptimizerError, RuntimeError):
    """A training step cannot be captured as a CUDA graph; model and optimizer have been left as they were."""
