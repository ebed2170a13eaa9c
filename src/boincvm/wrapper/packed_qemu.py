"""QEMU that came as a file of the app version: unpacked once for all tasks of this user.

    CACHE/qemu/lock           held by who unpacks
    CACHE/qemu/DIGEST/        what is in the file with that SHA-256; its time is its last use
    CACHE/qemu/DIGEST.json    the identity of each file in it (size, times, inode) when it was new
    CACHE/qemu/new-*/         what is being unpacked or removed, or was when its process was killed

The file is read at each use, so that it is found by its content, whatever its name is. What was
unpacked is used as long as no identity has changed, and unpacked again otherwise. `boincvm bundle
--qemu` makes such a file.
"""

import hashlib
import json
import lzma
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from io import FileIO
from pathlib import Path, PurePosixPath

from boincvm.errors import BoincvmError, HypervisorMissingError, JobFileError, host_error
from boincvm.host import locks
from boincvm.host.atomic_files import replacement
from boincvm.host.files import create_new, open_regular, set_mode
from boincvm.host.own_files import check_directory, open_own
from boincvm.host.programs import file_name
from boincvm.host.renames import rename
from boincvm.machine.host_capacity import check_fits
from boincvm.paths import cache_directory
from boincvm.portable_names import folded, is_portable_part
from boincvm.sizes import format_size
from boincvm.tar_reader import Member, TarError, TarReader
from boincvm.tree_entries import UnsafePathError, components, shown
from boincvm.wrapper.log import log
from boincvm.wrapper.signed_files import is_signed

PROGRAMS = ("qemu-system-x86_64", "qemu-system-aarch64")
"""One of them is in the file: the one for machines of its platform's processor."""
MOST_BYTES = 512 << 20
_MOST_FILES = 2000
_MOST_MEMORY = 128 << 20
"""Bytes that unpacking may take in memory."""
_MOST_TABLE = 1 << 20
_UNUSED_AGE = 30 * 86400.0
"""Seconds after which what nobody has used goes."""
_CHUNK = 1 << 18
_NEW = "new-"
_DAMAGED = (lzma.LZMAError, TarError, EOFError, UnsafePathError, UnicodeDecodeError)
_EXECUTABLE = 0o100


def unpacked(path: Path, app_files: Iterable[Path]) -> Path:
    """Return the directory with what the file `path` holds, unpacked now if that is missing.

    `app_files`: those of the app version, one of which it has to be; empty without a client. It
    blocks, for seconds if the file is new. Raises HypervisorMissingError if the file is damaged,
    JobFileError if it is not signed, HostDiskFullError, HostError.
    """
    app_files = frozenset(app_files)
    if app_files and not is_signed(path, app_files):
        raise JobFileError(
            f"{path.name} is not a file of the app version, so it is not signed",
            hint="make it one, or leave it out: then QEMU of the host is used",
        )
    root = cache_directory() / "qemu"
    try:
        with open_regular(path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            directory = root / digest
            with locks.exclusive(root / "lock"):
                check_directory(root)
                if not _is_as_unpacked(directory):
                    file.seek(0)
                    _replace(file, path, directory)
                os.utime(directory)
    except OSError as error:
        raise host_error(f"{path.name} cannot be unpacked into {root}", error) from error
    return directory


def _replace(file: FileIO, path: Path, directory: Path) -> None:
    """Unpack the open `file` in place of whatever `directory` is. Under the lock."""
    root = directory.parent
    _table(directory).unlink(missing_ok=True)
    for left in root.glob(f"{_NEW}*"):
        shutil.rmtree(left)
    oldest = time.time() - _UNUSED_AGE
    for old in tuple(root.iterdir()):
        if old.is_dir() and (old == directory or old.stat().st_mtime < oldest):
            # What is removed in part only must not be taken for the whole.
            _table(old).unlink(missing_ok=True)
            rename(old, root / f"{_NEW}{old.name}")
            shutil.rmtree(root / f"{_NEW}{old.name}")
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(dir=root, prefix=_NEW) as temporary:
        new = Path(temporary) / "unpacked"
        new.mkdir(mode=0o700)
        try:
            size = _unpack(file, new)
            names = [file_name(program) for program in PROGRAMS]
            if not any((new / name).is_file() for name in names):
                raise UnsafePathError(f"there is no {' or '.join(names)} in it")
        except _DAMAGED as error:
            raise _damaged(path, error) from error
        rename(new, directory)
    with replacement(_table(directory)) as part:
        part.touch(mode=0o600)  # whatever the umask
        part.write_text(json.dumps(_identities(directory)))
    seconds = time.monotonic() - begin
    log(f"QEMU of the app version was unpacked: {format_size(size)} in {seconds:.1f} s")


def _damaged(path: Path, error: Exception) -> BoincvmError:
    return HypervisorMissingError(
        f"QEMU cannot be used: {path.name} of the app version is damaged: {error}",
        hint="reset the project, so that the client downloads it again",
    )


class _Unpacked:
    """The content of an .xz file, checked when its end is read."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, _MOST_MEMORY)

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes; none at the end. Raises LZMAError, EOFError."""
        while not self._decompressor.eof:
            packed = self._file.read(_CHUNK) if self._decompressor.needs_input else b""
            if self._decompressor.needs_input and not packed:
                raise EOFError("it ends early")
            if data := self._decompressor.decompress(packed, size):
                return data
        if self._decompressor.unused_data or self._file.read(1):
            raise EOFError("it goes on after its end")
        return b""


def _unpack(file: FileIO, directory: Path) -> int:
    """Unpack an archive of regular files into the empty `directory`; return their size."""
    stream = _Unpacked(file)
    archive = TarReader(stream, most_members=_MOST_FILES)
    seen: set[tuple[str, ...]] = set()
    total = 0
    for member in archive:
        if member.kind == "directory":
            continue
        path = _path(member)
        if folded(path) in seen:
            raise UnsafePathError(f"{path} is in it twice")
        seen.add(folded(path))
        total += member.size
        if total > MOST_BYTES:
            raise UnsafePathError(f"it holds more than {format_size(MOST_BYTES)}")
        check_fits("its files", member.size, directory, hint="free some space")
        target = directory / path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with create_new(target) as written:
            while data := archive.read(_CHUNK):
                written.write(data)
            if member.mode & _EXECUTABLE:
                set_mode(written.fileno(), 0o700)
            written.flush()
            os.fsync(written.fileno())
    while stream.read(_CHUNK):
        pass  # the check of the content is at the end
    return total


def _path(member: Member) -> PurePosixPath:
    """Return where a file goes: beneath the archive's only directory, which is left out."""
    parts = [part.decode() for part in components(member.name)][1:]
    if member.kind != "file" or not parts or not all(map(is_portable_part, parts)):
        raise UnsafePathError(f"{shown(member.name)} is not what belongs into it")
    return PurePosixPath(*parts)


def _table(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.json")


def _is_as_unpacked(directory: Path) -> bool:
    """Tell whether all is there as it was unpacked. Raises HostError if it is not this user's."""
    try:
        with open_own(_table(directory)) as file:
            table = json.loads(file.read(_MOST_TABLE))
        return bool(table == _identities(check_directory(directory)))
    except (OSError, ValueError, RecursionError):
        return False  # it was never complete, or was removed


def _identities(directory: Path) -> Mapping[str, list[int]]:
    """Return what changes with each change of a file, for all files. Raises OSError."""
    found = {}
    for folder, _, names in os.walk(directory):
        for name in names:
            path = Path(folder) / name
            status = path.lstat()
            found[path.relative_to(directory).as_posix()] = [
                status.st_dev,
                status.st_ino,
                status.st_mode,
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
            ]
    return found
