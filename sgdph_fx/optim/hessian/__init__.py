"""How the Hessian that is due is asked for, found and kept until the step."""

__all__: list[str] = []
