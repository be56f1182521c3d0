"""An optimizer's state on its way to a file and back."""

__all__: list[str] = []
