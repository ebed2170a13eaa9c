"""Trees as tar streams: pax, with regular files, directories and links that stay inside.

`tarfile` is no more than the codec here: where things go, and whether they may, is for
`filetree`. What is read may be hostile; nothing of it is kept in memory but names.
"""

import errno
import os
import tarfile
import threading
from pathlib import Path
from typing import BinaryIO

from boincvm import filetree
from boincvm.controller.file_rules import MOST_BYTES, MOST_ENTRIES
from boincvm.filetree import Entry, TreeWriter, UnsafePathError

_CHUNK = 1 << 18
_LONGEST_HEAD = 1 << 17
"""Bytes of one pax header, or of a long name."""
_MOST_READS = 64
"""For one entry; `tarfile` reads a header from within the one before it."""
_OF_NAMES = (errno.EEXIST, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.EINVAL)


def pack(root: Path, tree: str, target: Path, stop: threading.Event) -> None:
    """Writes the tree at `tree` in the directory `root` to the new file `target`.

    Ends early, with UnsafePathError, when `stop` is set. Raises OSError, UnsafePathError.
    """
    base = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
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
    if entry.kind == "directory":
        info.type = tarfile.DIRTYPE
    elif entry.kind == "link":
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, os.fsdecode(entry.target), 0o777
    if descriptor < 0:
        tar.addfile(info)
        return
    info.size, info.mtime = entry.size, int(os.fstat(descriptor).st_mtime)
    with open(descriptor, "rb", closefd=False) as file:
        tar.addfile(info, file)


class _Careful:
    """A file as `tarfile` reads it, which may not ask for much at once, whatever a header says."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.reads = 0

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST_HEAD:
            raise UnsafePathError("a tar stream has a header that is too long")
        self.reads += 1
        if self.reads > _MOST_READS:
            raise UnsafePathError("a tar stream has too many headers before a file")
        return self._file.read(size)

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()


def unpack(source: Path, directory: Path, name: str, stop: threading.Event) -> None:
    """Makes the tree of the tar stream `source` as `name` in `directory`, where nothing of that
    name may be. Owners may read all of it.

    The tree's root and directories on the way to a file need not be in the stream. Anything else
    than files, directories and links that stay in the tree is refused, and so is a stream that
    ends early. Ends early itself when `stop` is set. Raises OSError, UnsafePathError.
    """
    parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
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
    except (tarfile.TarError, ValueError, RecursionError, OverflowError, EOFError) as error:
        raise UnsafePathError("that is no tar stream, or a damaged one") from error
    except OSError as error:
        if error.errno in _OF_NAMES:
            raise UnsafePathError(f"a tar stream has names that cannot be: {error}") from error
        raise
    finally:
        os.close(parent)


class _Unpacking:
    def __init__(self, file: BinaryIO, writer: TreeWriter, stop: threading.Event) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._writer = writer
        self._stop = stop
        self._directories: set[bytes] = set()

    def run(self) -> None:
        careful, before = _Careful(self._file), -1
        # "r:" is one that is not compressed
        with tarfile.open(fileobj=careful, mode="r:") as tar:  # type: ignore[call-overload]
            while True:
                _go_on(self._stop)
                careful.reads = 0
                info = tar.next()
                if info is None:
                    break
                tar.members.clear()
                if info.offset <= before or info.size < 0 or info.issparse():
                    raise UnsafePathError("a tar stream has a header that makes no sense")
                before = info.offset
                self._take(info)
            end = os.pread(self._file.fileno(), tarfile.BLOCKSIZE, tar.offset)
        if end != bytes(tarfile.BLOCKSIZE):  # `tarfile` takes a damaged header for the end
            raise UnsafePathError("a tar stream is damaged, or ends early")
        if not self._directories:
            self._add_directory(b"", 0o755)  # an empty stream is an empty tree

    def _take(self, info: tarfile.TarInfo) -> None:
        parts = filetree.components(os.fsencode(info.name))
        path = b"/".join(parts)
        if not parts or path in self._directories:
            if not info.isdir():
                raise UnsafePathError(
                    f"{filetree.shown(path)} is in the tar stream twice, or has no name"
                )
            if path not in self._directories:
                self._add_directory(path, info.mode)
            return
        for depth in range(len(parts)):
            above = b"/".join(parts[:depth])
            if above not in self._directories:
                self._add_directory(above, 0o755)
        if info.isdir():
            self._add_directory(path, info.mode)
        elif info.issym():
            self._writer.add(Entry("link", path, target=os.fsencode(info.linkname)))
        elif info.isreg():
            self._add_file(info, path)
        else:
            raise UnsafePathError(
                f"{filetree.shown(path)} in the tar stream is neither file, directory nor symlink"
            )

    def _add_directory(self, path: bytes, mode: int) -> None:
        self._writer.add(Entry("directory", path, (mode & 0o777) | 0o500))
        self._directories.add(path)

    def _add_file(self, info: tarfile.TarInfo, path: bytes) -> None:
        if info.offset_data + info.size > self._size:
            raise UnsafePathError("a tar stream ends within a file")
        self._writer.add(Entry("file", path, (info.mode & 0o777) | 0o400, info.size))
        offset = 0
        while offset < info.size:
            _go_on(self._stop)
            wanted = min(_CHUNK, info.size - offset)
            data = os.pread(self._file.fileno(), wanted, info.offset_data + offset)
            if not data:
                raise UnsafePathError("a tar stream ends within a file")
            if any(data):  # else a hole does
                self._writer.write(offset, data)
            offset += len(data)


def _go_on(stop: threading.Event) -> None:
    if stop.is_set():
        raise UnsafePathError("it is not wanted any more")
