"""A whole training step as a CUDA graph."""

__all__: list[str] = []
