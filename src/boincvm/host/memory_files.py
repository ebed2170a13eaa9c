"""Files that exist in memory only: nothing is left of them if the process is killed."""

import sys

if sys.platform == "win32":
    from boincvm.host.memory_files_windows import copy, create, for_child, path_of
else:
    from boincvm.host.memory_files_posix import copy, create, for_child, path_of

__all__ = [
    "copy",
    "create",
    "for_child",
    "path_of",
]
