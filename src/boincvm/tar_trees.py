"""File trees as pax streams of regular files, directories, and links that stay inside.

`filetree` decides where things go and whether they may; `tar_reader` guards against hostile
streams. Nothing of a tree is kept in memory but names.
"""

import errno
import os
import tarfile
import threading
from pathlib import Path
from typing import BinaryIO

from boincvm import tree_entries
from boincvm.host import filetree
from boincvm.host.filetree import TreeWriter
from boincvm.tar_reader import Member, TarError, TarReader, pax_time
from boincvm.tree_entries import Entry, UnsafePathError

MOST_BYTES = 64 << 30
"""Maximum size of a file, or of a tree as a tar stream."""
MOST_ENTRIES = 200_000
"""Maximum number of files, directories and links in a tree."""
_CHUNK = 1 << 18
_OF_NAMES = (errno.EEXIST, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.EINVAL)


def pack(root: Path, tree: str, target: Path, stop: threading.Event) -> None:
    """Write the tree at `tree` in the directory `root` to the new file `target`.

    Ends early, with UnsafePathError, when `stop` is set. Raises OSError, UnsafePathError.
    """
    base = filetree.open_directory(root)
    try:
        with (
            target.open("xb") as out,
            tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            for count, (entry, descriptor) in enumerate(filetree.walk(base, os.fsencode(tree))):
                _go_on(stop)
                if count >= MOST_ENTRIES or out.tell() > MOST_BYTES:
                    raise UnsafePathError("a tree has too many files, or too much in them")
                _pack_one(tar, entry, descriptor)
                tar.members.clear()  # type: ignore[attr-defined]  # else all names stay in memory
    finally:
        os.close(base)


def _pack_one(tar: tarfile.TarFile, entry: Entry, descriptor: int) -> None:
    info = tarfile.TarInfo(os.fsdecode(entry.path) or ".")
    info.mode = entry.mode
    if entry.modified is not None:
        info.pax_headers = {"mtime": pax_time(entry.modified)}
    if entry.kind == "directory":
        info.type = tarfile.DIRTYPE
    elif entry.kind == "link":
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, os.fsdecode(entry.target), 0o777
    if descriptor < 0:
        tar.addfile(info)
        return
    info.size = entry.size
    with open(descriptor, "rb", closefd=False) as file:
        tar.addfile(info, file)


def unpack(source: Path, directory: Path, name: str, stop: threading.Event) -> None:
    """Extract the tar stream `source` as the new tree `name` in `directory`.

    The owner can read everything in it. The tree's root and the directories above a file need not
    be in the stream. Anything but files, directories and links that stay in the tree is refused,
    and so is a truncated stream. Stops early when `stop` is set. Raises OSError, UnsafePathError.
    """
    parent = filetree.open_directory(directory)
    try:
        writer = TreeWriter(
            parent, os.fsencode(name), maximum_bytes=MOST_BYTES, maximum_entries=MOST_ENTRIES
        )
        try:
            with source.open("rb") as file:
                _Unpacking(file, writer, stop).run()
            writer.finish()
        finally:
            writer.close()
    except UnsafePathError:
        raise
    except TarError as error:
        raise UnsafePathError(f"a tar stream is refused: {error}") from error
    except OSError as error:
        if error.errno in _OF_NAMES:
            raise UnsafePathError(f"a tar stream has invalid names: {error}") from error
        raise
    finally:
        os.close(parent)


class _Unpacking:
    def __init__(self, file: BinaryIO, writer: TreeWriter, stop: threading.Event) -> None:
        self._reader = TarReader(file, most_members=MOST_ENTRIES)
        self._writer = writer
        self._stop = stop
        self._directories: set[bytes] = set()

    def run(self) -> None:
        _go_on(self._stop)
        for member in self._reader:
            self._add(member)
            _go_on(self._stop)
        if not self._directories:
            self._add_directory(b"", 0o755)  # an empty stream is an empty tree

    def _add(self, member: Member) -> None:
        parts = tree_entries.components(member.name)
        path = b"/".join(parts)
        if not parts or path in self._directories:
            if member.kind != "directory":
                raise UnsafePathError(
                    f"{tree_entries.shown(path)} is in the tar stream twice, or has no name"
                )
            if path not in self._directories:
                self._add_directory(path, member.mode, member.mtime)
            return
        for depth in range(len(parts)):
            above = b"/".join(parts[:depth])
            if above not in self._directories:
                self._add_directory(above, 0o755)
        if member.kind == "directory":
            self._add_directory(path, member.mode, member.mtime)
        elif member.kind == "link":
            self._writer.add(Entry("link", path, target=member.target, modified=member.mtime))
        elif member.kind == "file":
            self._add_file(member, path)
        else:
            raise UnsafePathError(
                f"{tree_entries.shown(path)} in the tar stream is neither file, directory"
                " nor symlink"
            )

    def _add_directory(self, path: bytes, mode: int, modified: int | None = None) -> None:
        self._writer.add(Entry("directory", path, (mode & 0o777) | 0o500, modified=modified))
        self._directories.add(path)

    def _add_file(self, member: Member, path: bytes) -> None:
        mode = (member.mode & 0o777) | 0o400
        self._writer.add(Entry("file", path, mode, member.size, modified=member.mtime))
        offset = 0
        while data := self._reader.read(_CHUNK):
            _go_on(self._stop)
            if any(data):  # else leave a hole
                self._writer.write(offset, data)
            offset += len(data)


def _go_on(stop: threading.Event) -> None:
    if stop.is_set():
        raise UnsafePathError("it is no longer wanted")
