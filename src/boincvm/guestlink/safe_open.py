"""Where an input of the host lies, and the directory from which it is reached without links."""

import os
from pathlib import Path

from boincvm.host.filetree import open_directory


def open_source(directory: Path, source: Path) -> tuple[int, bytes]:
    """A directory's descriptor, which the caller closes, and the path of `source` beneath it.

    A `source` beneath `directory` is to be reached from there, so that a link on the way shows;
    of any other only the last component is left. Raises OSError.
    """
    absolute = directory / source
    if absolute.is_relative_to(directory) and ".." not in source.parts:
        base, path = directory, absolute.relative_to(directory)
    else:
        base, path = absolute.parent, Path(absolute.name)
    return open_directory(base), os.fsencode(path)
