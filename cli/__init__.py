"""The command line, installed as ``sgdph_fx.cli``."""

__all__: list[str] = []
