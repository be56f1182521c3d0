"""Build the documentation as a site: `python -m sphinx -W docs build/docs`."""

from importlib.metadata import version as version_of

project = "sgdph-fx"
author = "the sgdph-fx authors"
release = version = version_of("sgdph-fx")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
html_theme = "furo"
html_title = f"sgdph-fx {version}"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
# Options such as --check and quotes in code must stay what they are.
smartquotes = False

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
# The arguments in a dataclass's docstring are its fields, so autodoc must not list them again.
autodoc_default_options = {"members": True, "undoc-members": False}
