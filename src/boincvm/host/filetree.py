"""Files and trees on their way between host and guest, safe against hostile content on either side.

No symbolic link is ever followed. tree_entries.py has the rules for paths and links.
"""

import sys

if sys.platform == "win32":
    from boincvm.host.filetree_windows import (
        TreeWriter,
        extents,
        open_directory,
        open_file,
        open_parent,
        remove_tree,
        rename,
        set_time,
        unlink,
        walk,
    )
else:
    from boincvm.host.filetree_posix import (
        TreeWriter,
        extents,
        open_directory,
        open_file,
        open_parent,
        remove_tree,
        rename,
        set_time,
        unlink,
        walk,
    )

__all__ = [
    "TreeWriter",
    "extents",
    "open_directory",
    "open_file",
    "open_parent",
    "remove_tree",
    "rename",
    "set_time",
    "unlink",
    "walk",
]
