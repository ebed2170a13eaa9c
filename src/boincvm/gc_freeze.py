"""Imports without the garbage collector: what a process of ours imports stays to its end.

Otherwise the collector looks at all modules several times while they come in, and once more when
the process ends (docs/benchmarks.md has the figures).
"""

import gc


def defer_collection() -> None:
    """Turn the collector off; to be called before anything else is imported."""
    gc.disable()


def freeze_imports() -> None:
    """Turn the collector on again, for all but what there is now."""
    gc.freeze()
    gc.enable()
