"""Child processes that end with us, awaited without threads or polling, and other processes."""

import sys

if sys.platform == "win32":
    from boincvm.host.processes_windows import (
        GUARD,
        ChildProcess,
        DeathGuard,
        ProcessWatch,
        die_with_parent,
        exit_status,
        kill_group,
        kill_opened,
        lower_priority,
        open_process,
        process_exists,
        signal_group,
        spawn_detached,
        terminate_group,
        use_idle_io,
        wait_for_child,
        watch_process,
        yield_processor,
    )
else:
    from boincvm.host.processes_posix import (
        GUARD,
        ChildProcess,
        DeathGuard,
        ProcessWatch,
        die_with_parent,
        exit_status,
        kill_group,
        kill_opened,
        lower_priority,
        open_process,
        process_exists,
        signal_group,
        spawn_detached,
        terminate_group,
        use_idle_io,
        wait_for_child,
        watch_process,
        yield_processor,
    )

__all__ = [
    "GUARD",
    "ChildProcess",
    "DeathGuard",
    "ProcessWatch",
    "die_with_parent",
    "exit_status",
    "kill_group",
    "kill_opened",
    "lower_priority",
    "open_process",
    "process_exists",
    "signal_group",
    "spawn_detached",
    "terminate_group",
    "wait_for_child",
    "watch_process",
    "use_idle_io",
    "yield_processor",
]
