"""The current user: name, home directory, and the directories for programs' data."""

import sys

if sys.platform == "win32":
    from boincvm.host.users_windows import (
        cache_home,
        configuration_home,
        data_home,
        home_directory,
        is_root,
        user_and_group,
        user_id,
        user_name,
    )
else:
    from boincvm.host.users_posix import (
        cache_home,
        configuration_home,
        data_home,
        home_directory,
        is_root,
        user_and_group,
        user_id,
        user_name,
    )

__all__ = [
    "cache_home",
    "configuration_home",
    "data_home",
    "home_directory",
    "is_root",
    "user_and_group",
    "user_id",
    "user_name",
]
