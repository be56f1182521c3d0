"""The paper's experiments and our own, ready to run: data, networks, recipes, and the loop that trains them.

This package is not installed. Run it from a checkout: ``python -m experiments.quickstart --help``.

The modules at the top are commands. The folders below them are, in the order in which a run uses them:

- ``datasets``: files on disk to batches on a device
- ``training``: one run, from its settings to the numbers of each epoch
- ``running``: many runs: recipe files, the log, resuming, several jobs at once
- ``reports``: logged runs to tables, plots and intervals
- ``hessian``: what the commands that measure Hessians share
"""
