"""Pipes and other descriptors: readiness, capacity and blocking."""

import sys

if sys.platform == "win32":
    from boincvm.host.channels_windows import (
        ATOMIC_WRITE,
        capacity,
        duplicate_above_streams,
        make_named_pipe,
        reader_has_gone,
        set_blocking,
        wait_until_writable,
        widen,
    )
else:
    from boincvm.host.channels_posix import (
        ATOMIC_WRITE,
        capacity,
        duplicate_above_streams,
        make_named_pipe,
        reader_has_gone,
        set_blocking,
        wait_until_writable,
        widen,
    )

__all__ = [
    "ATOMIC_WRITE",
    "capacity",
    "duplicate_above_streams",
    "reader_has_gone",
    "make_named_pipe",
    "set_blocking",
    "wait_until_writable",
    "widen",
]
