"""A machine is busy, and its shim, its hypervisor or the controller is killed.

These are some rounds of killed_operations.py, which can play any number; it prints `SEED`.
"""

from pathlib import Path

import pytest

from support.controller.killed_operations import PAIRS, fleet_in, play, rounds

pytestmark = [pytest.mark.timeout(280), pytest.mark.first]
SEED = 14
# Those that have failed once, at a moment at which they did.
KNOWN = [("suspend --to-disk", "hypervisor", 0.3)]
EVERY = 8


def test_something_is_killed_in_the_middle(base_image: Path, tmp_path: Path) -> None:
    """Take every eighth pair in an order that is random, but always the same."""
    chosen = [*KNOWN, *list(rounds(SEED, len(PAIRS)))[::EVERY]]
    with fleet_in(tmp_path) as fleet:
        for number, (name, victim, delay) in enumerate(chosen):
            play(fleet, f"m{number}", name, victim, delay)
