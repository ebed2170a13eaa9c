"""`<unzip_input>` and `<zip_output>` of job.xml: files of a job that travel as one archive.

Both functions block while the files are copied: call them in a thread. Imported only by jobs that
have archives, because `zipfile` is slow to import.
"""

import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from io import FileIO
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from boincvm.errors import (
    BoincvmError,
    HostDiskFullError,
    HostError,
    InputFileError,
    JobFileError,
    OutputFileError,
    host_error,
)
from boincvm.host.atomic_files import replacement, write_atomically
from boincvm.host.files import (
    SYNCS_ALL,
    create_new,
    open_descriptor,
    open_regular,
    read_regular,
    set_mode,
    sync_all,
)
from boincvm.host.filetree import open_directory, open_parent, rename, unlink
from boincvm.job.name_pattern import NamePattern, NamePatternError, compile_name_pattern
from boincvm.machine.host_capacity import check_fits
from boincvm.portable_names import PORTABLE_NAME, folded, is_portable_part
from boincvm.sizes import format_size
from boincvm.tree_entries import UnsafePathError, components, shown
from boincvm.wrapper.slot.state import SIZES_FILE, STATE_FILE
from boincvm.wrapper.slot.wrapper_checkpoint import CHECKPOINT_FILE

LIST_FILE = "initial_file_list"
"""The files that existed before the job began, one name a line, as BOINC's wrapper writes it."""
MOST_FILES = 100_000
MOST_BYTES = 1 << 40
_LARGEST_INDEX = 8 << 20
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
"""Methods that need little memory; unpacking an LZMA stream may take gigabytes."""
_COPY_SIZE = 1 << 20
_PART = b".boincvm-part"
_MADE_ON_UNIX = 3
_CLIENT_FILES = frozenset(
    {
        "init_data.xml",
        "boinc_mmap_file",
        "boinc_lockfile",
        "boinc_finish_called",
        "boinc_temporary_exit",
        "boinc_setup_complete",
    }
)
"""Files by which client and wrapper communicate; they are never packed or unpacked."""
_OWN_FILES = frozenset({LIST_FILE, CHECKPOINT_FILE, STATE_FILE, SIZES_FILE})
_BYTES = "latin-1"
"""Names in an archive are bytes; this encoding maps each of them to a character."""
_UTF_8 = 0x800
"""The flag of a member whose name is declared to be UTF-8."""
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    LZMAError,
    EOFError,
    NotImplementedError,  # a compression that Python lacks
    RuntimeError,  # an archive with a password
    ValueError,
    OverflowError,
)


def unzip_input(
    name: Path, archive: Path, directory: Path, *, maximum_bytes: int = MOST_BYTES
) -> None:
    """Unpack `archive`, which `name` in the slot stands for, into `directory`; remove `name`.

    Does nothing if `name` does not exist: all was done before. After an interruption it is done
    again from the start. Only regular files and directories are unpacked, beneath `directory`, with
    exactly the permissions that an archive made on Unix gives, but no set-user-id, or else those of
    any new file. Their times are those of the unpacking. `maximum_bytes` limits the sum of their
    sizes. Raises InputFileError, HostDiskFullError.
    """
    if not os.path.lexists(name):
        return
    try:
        with (
            _CappedFile(_open_plain(archive)) as file,
            zipfile.ZipFile(file, metadata_encoding=_BYTES) as opened,
        ):
            _check(opened.infolist(), maximum_bytes)
            _check_room(opened.infolist(), directory, archive)
            root = open_directory(directory)
            try:
                for info in opened.infolist():
                    _unpack(opened, info, root)
            finally:
                os.close(root)
        if SYNCS_ALL:
            sync_all()  # the files must be on the disk before the archive is removed
        name.unlink()
    except UnsafePathError as error:
        raise InputFileError(f"{archive} is refused: {error}") from error
    except _DAMAGED as error:
        raise InputFileError(f"{archive} is not a valid zip archive: {error}") from error
    except OSError as error:
        raise _disk_error(f"{archive} cannot be unpacked", error, InputFileError) from error


def _open_plain(path: Path) -> int:
    with open_regular(path) as file:
        return os.dup(file.fileno())


class _CappedFile(FileIO):
    """A file that refuses to read more at once than the largest size of an archive's index."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _LARGEST_INDEX:
            raise zipfile.BadZipFile(f"its index is larger than {format_size(_LARGEST_INDEX)}")
        return super().read(size)


def _check(entries: Sequence[zipfile.ZipInfo], maximum_bytes: int) -> None:
    if len(entries) > MOST_FILES:
        raise UnsafePathError(f"it holds more than {MOST_FILES} files")
    seen: dict[tuple[str, ...], list[bytes]] = {}
    if sum(info.file_size for info in entries) > maximum_bytes:
        raise UnsafePathError(f"its files have more than {format_size(maximum_bytes)} together")
    for info in entries:
        path = _path(info)
        if info.compress_type not in _COMPRESSIONS:
            raise UnsafePathError(f"{shown(path)} in it uses an unsupported compression")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UnsafePathError(f"{shown(path)} in it is neither a file nor a directory")
        parts = components(path)
        _check_portable(path, parts, seen)
        if len(parts) == 1 and _lower(parts[0]) in _CLIENT_FILES | _OWN_FILES:
            raise UnsafePathError(f"{shown(path)} in it is a file of the BOINC client")


def _check_portable(
    path: bytes, parts: list[bytes], seen: dict[tuple[str, ...], list[bytes]]
) -> None:
    """Refuse what a host with Windows would read in another way: a job travels.

    `seen`: all paths of the archive so far, and their directories.
    """
    names = [part.decode("utf-8", "surrogateescape") for part in parts]
    if not all(map(is_portable_part, names)):
        raise UnsafePathError(f"{shown(path)} in it is not {PORTABLE_NAME}")
    whole = folded(PurePosixPath(*names))
    for depth in range(1, len(parts) + 1):
        if seen.setdefault(whole[:depth], parts[:depth]) != parts[:depth]:
            raise UnsafePathError(
                f"{shown(path)} in it differs from another name only in upper and lower case,"
                " which Windows does not tell apart"
            )


def _lower(name: bytes) -> str:
    """Return a name as Windows compares it with ours, which have small letters of ASCII only."""
    return name.decode("latin-1").lower()


def _check_room(entries: Sequence[zipfile.ZipInfo], directory: Path, archive: Path) -> None:
    """Check that the files fit on the disk: a small archive may hold petabytes of zeros."""
    size = sum(info.file_size for info in entries)
    what = f"{archive} cannot be unpacked: its files"
    check_fits(what, size, directory, hint="free some space")


def _path(info: zipfile.ZipInfo) -> bytes:
    name = info.filename
    if info.create_system == 0:  # made on Windows, where some programs write \ between names
        name = name.replace("\\", "/")
    return name.encode("utf-8" if info.flag_bits & _UTF_8 else _BYTES)


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo, root: int) -> None:
    path = _path(info)
    parts = components(path)
    if path.endswith(b"/"):
        os.close(open_parent(root, [*parts, b""], create=True))
        return
    if not parts:
        raise UnsafePathError("a file in it has no name")
    parent = open_parent(root, parts, create=True)
    try:
        _remove(_PART, parent)
        with (
            archive.open(info) as source,
            os.fdopen(open_descriptor(_PART, "x", parent=parent), "wb") as target,
        ):
            shutil.copyfileobj(source, target, _COPY_SIZE)
            if mode := _mode(info) & 0o777:
                set_mode(target.fileno(), mode)
            if not SYNCS_ALL:
                target.flush()
                os.fsync(target.fileno())
        rename(_PART, parts[-1], parent)
    finally:
        _remove(_PART, parent)
        os.close(parent)


def _mode(info: zipfile.ZipInfo) -> int:
    """Return the file's Unix mode; 0 if another system made the archive, or it has none."""
    return info.external_attr >> 16 if info.create_system == _MADE_ON_UNIX else 0


def _remove(name: bytes, directory: int) -> None:
    try:
        unlink(name, directory)
    except FileNotFoundError:
        return


def remember_files(slot: Path) -> None:
    """Record what is in the slot before the first task starts: it is not the job's output.

    Needed only by jobs with zip_output. An existing list stays. Raises HostDiskFullError,
    HostError.
    """
    if os.path.lexists(slot / LIST_FILE):
        return
    names = sorted(name for name in _names(slot) if _is_plain(name))
    try:
        write_atomically(slot / LIST_FILE, b"".join(name + b"\n" for name in names))
    except OSError as error:
        raise _disk_error(f"{LIST_FILE} cannot be written", error) from error


def compile_patterns(patterns: Iterable[str]) -> tuple[NamePattern, ...]:
    """Compile the `<filename>`s of zip_output. Raises JobFileError: do it before the job runs."""
    return tuple(_compiled(pattern) for pattern in patterns)


def _compiled(pattern: str) -> NamePattern:
    try:
        return compile_name_pattern(pattern)
    except ValueError as error:
        raise JobFileError(
            f"zip_output's filename {pattern[:100]!r} is not a regular expression: {error}"
        ) from error


def zip_output(slot: Path, archive: Path, patterns: Sequence[NamePattern]) -> None:
    """Make `archive` of the job's new files whose names match one of `patterns` anywhere.

    New files are those that did not exist before the job. An existing archive stays as it is. Only
    regular files directly in the slot count, as for BOINC's wrapper; a link does not. The archive
    is written whole or not at all. Raises OutputFileError, HostDiskFullError, HostError.
    """
    if archive.is_file():
        return
    if os.path.lexists(archive):
        raise OutputFileError(f"{archive} cannot be made: something else has that name")
    chosen = _chosen(slot, patterns)
    if not chosen:
        raise OutputFileError(
            f"nothing to put into {archive.name}: no new file in the slot matches zip_output",
            hint="a filename of zip_output is a regular expression, not a shell pattern",
        )
    try:
        with (
            replacement(archive) as part,
            create_new(part) as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made,
        ):
            for name in chosen:
                _add(made, slot, name)
    except OSError as error:
        raise _disk_error(f"{archive} cannot be written", error) from error


def _chosen(slot: Path, patterns: Sequence[NamePattern]) -> list[bytes]:
    before = frozenset(map(os.fsencode, _CLIENT_FILES | _OWN_FILES))
    try:
        before |= frozenset(read_regular(slot / LIST_FILE, _LARGEST_INDEX).split(b"\n"))
    except FileNotFoundError:
        pass  # the stock wrapper, which began the job, may have left none: all is output
    except OSError as error:
        raise HostError(f"{LIST_FILE} cannot be read: {error.strerror}") from error
    try:
        return sorted(
            name
            for name in _names(slot)
            if name not in before
            and _is_plain(name)
            and any(pattern.search(name) for pattern in patterns)
            and stat.S_ISREG(os.lstat(os.fsencode(slot) + b"/" + name).st_mode)
        )
    except NamePatternError as error:
        raise OutputFileError(f"zip_output's filename cannot be used: {error}") from error


def _names(slot: Path) -> list[bytes]:
    with os.scandir(os.fsencode(slot)) as entries:
        return [entry.name for entry in entries]


def _is_plain(name: bytes) -> bool:
    """Tell whether `name` has no control characters, which a list of lines could not hold."""
    return min(name) >= ord(" ")


class _Member(zipfile.ZipInfo):
    """A member whose name is bytes; it is marked as UTF-8 if the bytes are valid UTF-8."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802 - zipfile calls it
        name = self.filename.encode(_BYTES)
        try:
            name.decode()
        except UnicodeDecodeError:
            return name, self.flag_bits & ~_UTF_8
        return name, self.flag_bits | (0 if name.isascii() else _UTF_8)


def _add(archive: zipfile.ZipFile, slot: Path, name: bytes) -> None:
    path = slot / os.fsdecode(name)
    with open_regular(path) as source:
        # The format begins in 1980; an older file gets that year.
        info = _Member.from_file(path, name.decode(_BYTES), strict_timestamps=False)
        info.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(info, "w") as target:
            shutil.copyfileobj(source, target, _COPY_SIZE)


def _disk_error(what: str, error: OSError, kind: type[BoincvmError] = HostError) -> BoincvmError:
    full = HostDiskFullError(f"{what}: the host's disk is full", hint="free some space")
    return host_error(what, error, kind, full=full)
