"""The losses that have a name on the command line."""

__all__ = ["LOSSES"]

LOSSES = ("cross-entropy", "mse")
