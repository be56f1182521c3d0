"""The paper's experiments, runnable: data, networks, recipes and the loop that trains them.

Not part of the installed package; run from a checkout, ``python -m experiments.quickstart --help``.
"""
