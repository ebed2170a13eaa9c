"""Changes of files on macOS and Windows, where nobody tells them yet."""

from collections.abc import Callable
from pathlib import Path


class FileWatch:
    """Never calls `on_change`: whoever asks learns later, from the file itself."""

    def __init__(self, path: Path, on_change: Callable[[], None]) -> None:
        """Take note of nothing."""

    def close(self) -> None:
        """Do nothing."""
