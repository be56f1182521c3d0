"""Who belongs to an optimizer: its groups, names and turns, and parameters that join later."""

__all__: list[str] = []
