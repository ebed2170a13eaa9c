"""Changes of files on macOS and Windows, where nobody tells them yet."""

from collections.abc import Callable
from pathlib import Path


class FileWatch:
    """Never calls `on_change`: the caller has to read the file later."""

    def __init__(self, path: Path, on_change: Callable[[], None]) -> None:
        """Take note of nothing."""

    def close(self) -> None:
        """Do nothing."""
