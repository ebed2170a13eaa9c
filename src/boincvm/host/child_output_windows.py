"""The end of a child's output on Windows: a file; import it through `child_output`.

A child cannot have a socket of ours as its standard error there. Nothing limits the file's size.
"""

import os
from pathlib import Path

from boincvm.host.files import open_descriptor, read_at

TAIL_SIZE = 64 << 10
"""Bytes that are returned, the last ones."""


class ChildOutput:
    """What a child writes that is started with `inherited`; see child_output_posix.py."""

    def __init__(self, path: Path) -> None:
        """Make the file `path`, or empty it. Raises OSError."""
        self.inherited = open_descriptor(path, "w+", follow_links=False, permissions=0o600)
        """The descriptor that the child gets as its standard error; -1 once it is closed."""

    def started(self) -> None:
        """Take note that the child has been started."""

    def watch(self) -> None:
        """Do nothing: the file is read when somebody asks."""

    def tail(self) -> bytes:
        """Return the last bytes that it has written."""
        if self.inherited < 0:
            return b""
        size = os.fstat(self.inherited).st_size
        return read_at(self.inherited, TAIL_SIZE, max(size - TAIL_SIZE, 0))

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self.inherited >= 0:
            os.close(self.inherited)
            self.inherited = -1
