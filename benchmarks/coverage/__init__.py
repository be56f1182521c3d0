"""The coverage table: every model of four zoos is read, prepared and restored, and what is found is logged.

``python -m benchmarks.coverage --zoo all --out coverage.jsonl`` measures, and ``--render coverage.jsonl`` writes the
page. Weights are random, and nothing is downloaded.
"""
