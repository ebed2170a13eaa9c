"""Benchmarks of what boincvm promises: `python -m benchmarks`."""
