"""Imports without garbage collection: imported modules live until the process ends.

Otherwise the collector scans all modules several times during import, and once more when the
process ends (docs/benchmarks.md has the figures).
"""

import gc
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


_has_frozen = False


def defer_collection() -> None:
    """Turn the collector off; call this before importing anything else."""
    gc.disable()


def freeze_imports() -> None:
    """Turn the collector on again, and exempt everything that exists now."""
    global _has_frozen
    _has_frozen = True
    gc.freeze()
    gc.enable()


@contextmanager
def late_imports() -> "Iterator[None]":
    """Treat what is imported in the block as what was imported before `freeze_imports`.

    In a process that froze nothing, such as one that uses our modules as a library, do nothing.
    """
    if not _has_frozen:
        yield
        return
    defer_collection()
    try:
        yield
    finally:
        freeze_imports()
