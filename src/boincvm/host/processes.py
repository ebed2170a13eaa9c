"""Child processes that end with us, awaited without a thread or a poll, and others' processes."""

import sys

if sys.platform == "win32":
    from boincvm.host.processes_windows import (
        ChildProcess,
        guarded,
        kill_group,
        kill_opened,
        lower_priority,
        open_process,
        process_exists,
        signal_group,
        spawn_detached,
        terminate_group,
        wait_for_child,
        yield_disk,
        yield_processor,
    )
else:
    from boincvm.host.processes_posix import (
        ChildProcess,
        guarded,
        kill_group,
        kill_opened,
        lower_priority,
        open_process,
        process_exists,
        signal_group,
        spawn_detached,
        terminate_group,
        wait_for_child,
        yield_disk,
        yield_processor,
    )

__all__ = [
    "ChildProcess",
    "guarded",
    "kill_group",
    "kill_opened",
    "lower_priority",
    "open_process",
    "process_exists",
    "signal_group",
    "spawn_detached",
    "terminate_group",
    "wait_for_child",
    "yield_disk",
    "yield_processor",
]
