"""Several processes that train one model."""

__all__: list[str] = []
