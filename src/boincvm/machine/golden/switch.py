"""The user's switch for golden snapshots, in its own file because it is read very early."""

import os

SWITCH = "BOINCVM_GOLDEN"
"""The environment variable that controls golden snapshots. `no` turns them off. With `existing`,
machines start from existing snapshots, and only `boincvm image warm` makes new ones."""


def is_enabled() -> bool:
    """Tell whether machines may start from golden snapshots."""
    return os.environ.get(SWITCH) != "no"


def makes_more() -> bool:
    """Tell whether missing snapshots may be made in the background."""
    return os.environ.get(SWITCH) not in ("no", "existing")
