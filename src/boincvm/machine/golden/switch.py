"""Whether golden snapshots are wanted at all; here alone, for it has to be asked early."""

import os

SWITCH = "BOINCVM_GOLDEN"
"""The environment variable that turns golden snapshots off, if it is `no`."""


def is_wanted() -> bool:
    """Return whether machines may start from golden snapshots."""
    return os.environ.get(SWITCH) != "no"
