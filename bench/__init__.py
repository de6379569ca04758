"""Benchmarks: one file a figure; `python -m bench [NAME ...]` runs them and writes RESULTS.md."""
