"""Finds an input of the host, and the directory from which it is reached without links."""

import os
from pathlib import Path

from boincvm.host.filetree import open_directory


def open_source(directory: Path, source: Path) -> tuple[int, bytes]:
    """Return a directory's descriptor, which the caller closes, and `source` relative to it.

    A `source` beneath `directory` is relative to that, so that a link on the way is noticed; for
    any other only the last component is left. Raises OSError.
    """
    absolute = directory / source
    if absolute.is_relative_to(directory) and ".." not in source.parts:
        base, path = directory, absolute.relative_to(directory)
    else:
        base, path = absolute.parent, Path(absolute.name)
    return open_directory(base), os.fsencode(path.as_posix())
