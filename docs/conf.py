"""The documentation as a site: `python -m sphinx -W docs build/docs`."""

from importlib.metadata import version as version_of

project = "sgdph-fx"
author = "the sgdph-fx authors"
release = version = version_of("sgdph-fx")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
html_theme = "furo"
html_title = f"sgdph-fx {version}"

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
# A docstring's arguments are the fields of its dataclass; listed once, by it.
autodoc_default_options = {"members": True, "undoc-members": False}
