"""Shared test support: benches to run in, fake guests, clients and brokers, running machines."""

import os
from pathlib import Path

TESTS = Path(__file__).parents[1]
CHECKOUT = TESTS.parent


def with_support() -> dict[str, str]:
    """Return the environment in which `python -m support.NAME` finds the module."""
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(TESTS), *([path] if path else [])))}
