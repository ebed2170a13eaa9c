"""Users: who this is, and where the system says that he is at home."""

import sys

if sys.platform == "win32":
    from boincvm.host.users_windows import group_of, home_directory, is_root, user_id, user_name
else:
    from boincvm.host.users_posix import group_of, home_directory, is_root, user_id, user_name

__all__ = [
    "group_of",
    "home_directory",
    "is_root",
    "user_id",
    "user_name",
]
