"""``python -m sgdph_fx`` is ``sgdph-convert``."""

from sgdph_fx.cli.program import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
