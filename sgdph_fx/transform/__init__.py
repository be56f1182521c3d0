"""Module → Module: weights into direction and gain, and back."""

from sgdph_fx.transform.decouple import decouple, restore

__all__ = ["decouple", "restore"]
