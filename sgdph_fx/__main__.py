"""``python -m sgdph_fx`` is ``sgdph-convert``."""

import importlib.util
import sys
from pathlib import Path

__all__: list[str] = []

# In a clone its own folder comes before what is installed, and there the command line lies beside it.
if importlib.util.find_spec("sgdph_fx.cli") is None:
    sys.modules["sgdph_fx"].__path__.append(str(Path(__file__).parents[1]))

from sgdph_fx.cli.program import main

if __name__ == "__main__":
    main()
