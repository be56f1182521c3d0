"""The rules of single operations: a file for each kind, each with a table ``RULES`` of nodes."""

__all__: list[str] = []
