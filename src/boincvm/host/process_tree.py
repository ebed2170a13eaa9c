"""The descendants of a process: their ids, resource usage, and signals to them.

A tree here is all that descends from a process, without the process itself.
"""

import sys

if sys.platform == "linux":
    from boincvm.host.process_tree_linux import (
        ALARM,
        CONTINUE,
        KILL,
        STOP,
        STOP_REQUEST,
        children,
        command_line,
        descendants,
        is_traced,
        own_usage,
        send,
        signal_tree,
        sleeps,
        stands_still,
        stop_round,
        usage,
    )
elif sys.platform == "win32":
    from boincvm.host.process_tree_windows import (
        ALARM,
        CONTINUE,
        KILL,
        STOP,
        STOP_REQUEST,
        children,
        command_line,
        descendants,
        is_traced,
        own_usage,
        send,
        signal_tree,
        sleeps,
        stands_still,
        stop_round,
        usage,
    )
else:
    from boincvm.host.process_tree_unsupported import (
        ALARM,
        CONTINUE,
        KILL,
        STOP,
        STOP_REQUEST,
        children,
        command_line,
        descendants,
        is_traced,
        own_usage,
        send,
        signal_tree,
        sleeps,
        stands_still,
        stop_round,
        usage,
    )

__all__ = [
    "ALARM",
    "CONTINUE",
    "KILL",
    "STOP",
    "STOP_REQUEST",
    "children",
    "command_line",
    "descendants",
    "is_traced",
    "own_usage",
    "send",
    "signal_tree",
    "sleeps",
    "stands_still",
    "stop_round",
    "usage",
]
