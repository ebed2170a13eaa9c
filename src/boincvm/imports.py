"""Imports without the garbage collector: what a process imports stays to its end."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_is_ours = False


def own_process() -> None:
    """To be called by a program of ours, whose process does nothing else: `lasting` has an
    effect on the whole of it, and only after this."""
    global _is_ours
    _is_ours = True


@contextmanager
def lasting() -> Iterator[None]:
    """For imports in the block. What there is at its end, the collector will never look at.

    Without this it looks at all modules again and again while they come in, and once more when
    the process ends (docs/benchmarks.md).
    """
    if not _is_ours:
        yield
        return
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
