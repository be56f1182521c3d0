"""The coverage table: every model of four zoos, read, prepared and restored, with what was found on the way.

``python -m benchmarks.coverage --zoo all --out coverage.jsonl`` measures, ``--render coverage.jsonl`` writes
the page. Weights are random and nothing is downloaded.
"""
