"""Prepares names and texts that may come from the guest for display in messages."""

import os
from collections.abc import Callable
from pathlib import PurePath

from boincvm import tree_entries

Progress = Callable[[int], None]
"""Called with the bytes of file content that have moved since the last call."""


def no_progress(_: int) -> None:
    """Ignore progress, for callers that do not show any."""


def printable(text: bytes) -> str:
    """Return `text` as one line of at most 300 characters, whatever the guest put in it."""
    return "".join(filter(str.isprintable, text.decode(errors="replace")))[:300]


def shown(path: PurePath) -> str:
    """Prepare `path` for display in a message."""
    return tree_entries.shown(os.fsencode(path))
