"""Measurements of sgdph-fx: what it costs, and on what it works."""
