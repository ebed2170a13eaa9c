"""Who still needs the content of an image, whatever becomes of its name.

    images/references/ID   JSON: the digest, the image's name then, who needs it, and its directory

A machine that is off and a job that can be resumed lie elsewhere; only this tells the store of
them. A reference counts as long as the directory exists that it names: one whose machine was
removed, even by hand, is removed by the next process that looks. The caller holds the store's lock
for all but reading.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from boincvm.host.atomic_files import write_atomically
from boincvm.host.own_files import make_directory, open_own

_MOST_BYTES = 1 << 16


class Reference(NamedTuple):
    """One machine or job that needs an image."""

    digest: str
    name: str
    """The image's name when it was begun; it may stand for something else now."""
    owner: str
    """Who that is, for people."""
    directory: str
    """As it is stored: relative to the store if it lies beneath the same data directory, so that a
    copy of all stays correct."""


class References:
    """The references in the store at `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._directory = root / "references"

    def of(self, directory: Path) -> Reference | None:
        """Return the reference of the machine or job in `directory`. Raises OSError, HostError."""
        return self._read(self._path(self._stored(directory)))

    def all(self) -> list[Reference]:
        """Return all whose directories exist, sorted by owner. Raises OSError, HostError."""
        if not self._directory.is_dir():
            return []
        found = (self._read(path) for path in self._directory.iterdir())
        return sorted(
            (one for one in found if one is not None and self._is_needed(one)),
            key=lambda one: one.owner,
        )

    def add(self, digest: str, name: str, owner: str, directory: Path) -> None:
        """Add a reference, in place of a former one of the same directory. Raises OSError."""
        stored = self._stored(directory)
        make_directory(self._directory)
        table = Reference(digest, name, owner, stored)._asdict()
        write_atomically(self._path(stored), json.dumps(table))

    def remove(self, directory: Path) -> None:
        """Remove the reference of `directory`, if there is one. Raises OSError."""
        self._path(self._stored(directory)).unlink(missing_ok=True)

    def prune(self) -> None:
        """Remove those whose directories have gone. Raises OSError, HostError."""
        if not self._directory.is_dir():
            return
        for path in self._directory.iterdir():
            one = self._read(path)
            if one is None or not self._is_needed(one):
                path.unlink(missing_ok=True)

    def _stored(self, directory: Path) -> str:
        if directory.is_relative_to(self._root.parent):
            return os.path.relpath(directory, self._root)
        return str(directory)

    def _path(self, stored: str) -> Path:
        name = hashlib.sha256(os.fsencode(stored)).hexdigest()[:32]
        return self._directory / name

    def _is_needed(self, one: Reference) -> bool:
        # `..` is meant as `_stored` has written it, even if the store is a link to another disk.
        directory = os.path.normpath(self._root / one.directory)
        try:
            os.lstat(directory)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return False
        except OSError:
            return True  # it cannot be seen just now
        return True

    @staticmethod
    def _read(path: Path) -> Reference | None:
        """Read a reference; return None if there is none, or something else is there.

        Raises OSError, HostError: it may be there, so nothing may be removed.
        """
        with suppress(FileNotFoundError, ValueError, RecursionError, TypeError):
            with open_own(path) as file:
                table = json.loads(file.read(_MOST_BYTES))
            one = Reference(**table)
            if all(isinstance(field, str) for field in one):
                return one
        return None
