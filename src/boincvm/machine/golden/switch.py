"""Whether golden snapshots are wanted at all; here alone, for it has to be asked early."""

import os

SWITCH = "BOINCVM_GOLDEN"
"""The environment variable that turns golden snapshots off, if it is `no`. If it is `existing`,
machines start from those that are there, and no others are made but by `boincvm image warm`."""


def is_wanted() -> bool:
    """Return whether machines may start from golden snapshots."""
    return os.environ.get(SWITCH) != "no"


def makes_more() -> bool:
    """Return whether snapshots that are missing may be made in the background."""
    return os.environ.get(SWITCH) not in ("no", "existing")
