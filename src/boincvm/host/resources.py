"""The host's resources: processors, memory and descriptors; and the id of its current boot."""

import sys

if sys.platform == "win32":
    from boincvm.host.resources_windows import (
        available_memory,
        boot_id,
        busy_seconds,
        most_open_files,
        processor_architecture,
        processor_name,
        processors,
        total_memory,
        usable_processors,
        used_memory,
    )
else:
    from boincvm.host.resources_posix import (
        available_memory,
        boot_id,
        busy_seconds,
        most_open_files,
        processor_architecture,
        processor_name,
        processors,
        total_memory,
        usable_processors,
        used_memory,
    )

__all__ = [
    "available_memory",
    "boot_id",
    "busy_seconds",
    "most_open_files",
    "processor_architecture",
    "processor_name",
    "processors",
    "total_memory",
    "usable_processors",
    "used_memory",
]
