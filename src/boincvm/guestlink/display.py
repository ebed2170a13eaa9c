"""How names and texts that may come from the guest look in a message."""

import os
from collections.abc import Callable
from pathlib import PurePath

from boincvm import tree_entries

Progress = Callable[[int], None]
"""Told how many bytes of file content have moved since the last time."""


def no_progress(_: int) -> None:
    """For callers that do not show any."""


def printable(text: bytes) -> str:
    """One line of at most 300 characters, whatever the guest put in it."""
    return "".join(filter(str.isprintable, text.decode(errors="replace")))[:300]


def shown(path: PurePath) -> str:
    """`path` for a message."""
    return tree_entries.shown(os.fsencode(path))
