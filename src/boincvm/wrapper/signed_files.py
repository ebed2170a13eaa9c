"""Identifies the files of the app version, whose signatures the client has checked.

The client links them into the slot or, with `<copy_file/>`, copies them there. A copy has the same
bytes as the original; its name proves nothing, because a file of the workunit may have it.
"""

import os
from collections.abc import Iterable
from io import FileIO
from pathlib import Path

from boincvm.host.files import open_regular

_CHUNK = 1 << 20


def is_signed(path: Path, app_files: Iterable[Path]) -> bool:
    """Tell whether `path`, which contains no links, is one of `app_files` or a copy of one.

    May read the whole file; a file that cannot be read is not signed.
    """
    if path in app_files:
        return True
    try:
        with open_regular(path) as file:
            return any(_is_copy(file, original) for original in app_files)
    except OSError:
        return False


def is_signed_content(content: bytes, app_files: Iterable[Path]) -> bool:
    """Tell whether one of `app_files` has exactly this content."""
    for original in app_files:
        try:
            with open_regular(original) as file:
                if _size(file) == len(content) and file.read(len(content) + 1) == content:
                    return True
        except OSError:
            continue
    return False


def _is_copy(file: FileIO, path: Path) -> bool:
    try:
        with open_regular(path) as original:
            if _size(original) != _size(file):
                return False
            file.seek(0)
            while chunk := original.read(_CHUNK):
                if file.read(len(chunk)) != chunk:
                    return False
            return not file.read(1)
    except OSError:
        return False


def _size(file: FileIO) -> int:
    return os.fstat(file.fileno()).st_size
