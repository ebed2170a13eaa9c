"""What boincvm must reach, measured: `python -m benchmarks`."""
