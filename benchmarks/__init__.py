"""Measure sgdph-fx: what it costs, and on which models it works."""
