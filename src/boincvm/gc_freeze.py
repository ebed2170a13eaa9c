"""Imports without garbage collection: imported modules live until the process ends.

Otherwise the collector scans all modules several times during import, and once more when the
process ends (docs/benchmarks.md has the figures).
"""

import gc


def defer_collection() -> None:
    """Turn the collector off; call this before importing anything else."""
    gc.disable()


def freeze_imports() -> None:
    """Turn the collector on again, and exempt everything that exists now."""
    gc.freeze()
    gc.enable()
