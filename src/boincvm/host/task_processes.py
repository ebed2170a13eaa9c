"""All processes of a host task's program: suspended, ended and measured together.

On Linux a supervisor holds them (supervised.py), on Windows a job object.
"""

import sys

if sys.platform == "win32":
    from boincvm.host.task_processes_windows import TaskProcesses
else:
    from boincvm.host.task_processes_posix import TaskProcesses

__all__ = ["TaskProcesses"]
