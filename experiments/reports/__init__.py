"""Logged runs as tables, plots and intervals."""
