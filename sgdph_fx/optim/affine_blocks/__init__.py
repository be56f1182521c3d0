"""Scale and shift of the same channels, which step by the 2×2 block of each channel."""

__all__: list[str] = []
