"""Imports without the garbage collector: what a process imports stays to its end.

This file itself imports next to nothing: some of what comes before QEMU's start needs it.
"""

import gc

_is_ours = False


def own_process() -> None:
    """To be called by a program of ours, whose process does nothing else: `lasting` has an
    effect on the whole of it, and only after this."""
    global _is_ours
    _is_ours = True


class lasting:  # noqa: N801  # it is used like a function
    """For imports in the block. What there is at its end, the collector will never look at.

    Without this it looks at all modules again and again while they come in, and once more when
    the process ends (docs/benchmarks.md).
    """

    def __enter__(self) -> None:
        self._was_enabled = gc.isenabled()
        if _is_ours:
            gc.disable()

    def __exit__(self, *_: object) -> None:
        if _is_ours:
            gc.freeze()
            if self._was_enabled:
                gc.enable()
