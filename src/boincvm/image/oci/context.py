"""The context of a Dockerfile: what of a directory is sent to the machine that builds.

It becomes a tar archive, before any machine starts. The directory may be anybody's: no link in it
is followed, so nothing from elsewhere gets into the archive.
"""

import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from boincvm.errors import BoincvmError, InputFileError, host_error
from boincvm.host import filetree
from boincvm.host.files import read_regular
from boincvm.image.oci.ignore_rules import IgnoreRules
from boincvm.sizes import format_size
from boincvm.tree_entries import MAXIMUM_DEPTH, UnsafePathError, shown

MOST_FILES = 100_000
"""Files, directories and links in a context."""
MOST_BYTES = 4 << 30
"""Bytes of all its files."""
MOST_TEXT = 1 << 20
"""Bytes of a Dockerfile, and of a file with rules for what is left out."""
DOCKERFILES = ("Dockerfile", "Containerfile")
"""Names of a Dockerfile, in the order in which they are looked for."""
_IGNORE_FILES = (".dockerignore", ".containerignore")
_HINT = "what the build does not need can be named in .dockerignore"


class Contents(NamedTuple):
    """What an archive of a context has."""

    files: int
    """Files, directories and links."""
    size: int
    """Bytes of all files."""


class Dockerfile(NamedTuple):
    """A Dockerfile, and which files it wants of its context."""

    text: bytes
    rules: IgnoreRules


def read_dockerfile(directory: Path, file: Path | None = None) -> Dockerfile:
    """Read the Dockerfile of `directory`, or the one that the user has named, and its rules.

    What nobody has named must be in the directory, also after links have been followed. Raises
    InputFileError.
    """
    if not directory.is_dir():
        raise InputFileError(
            f"{str(directory)!r} is no directory with a Dockerfile",
            hint="name the directory that has the Dockerfile and what it copies, like: .",
        )
    if file is None:
        found = [directory / name for name in DOCKERFILES if os.path.lexists(directory / name)]
        if not found:
            raise InputFileError(
                f"{str(directory)!r} has no {DOCKERFILES[0]}",
                hint="name it if it is elsewhere: --file FILE",
            )
        path = found[0]
        text = _read(_beneath(directory, path))
    else:
        path = file
        text = _read(file)
    return Dockerfile(text, _rules(directory, path))


def _rules(directory: Path, dockerfile: Path) -> IgnoreRules:
    """Return the rules of the Dockerfile itself, or those of the directory."""
    own = dockerfile.with_name(f"{dockerfile.name}{_IGNORE_FILES[0]}")
    if os.path.lexists(own):
        # Beside a Dockerfile that the user has named it may be anywhere, but no link leads there.
        return IgnoreRules(_read(_beneath(own.parent, own)), str(own))
    for name in _IGNORE_FILES:
        path = directory / name
        if os.path.lexists(path):
            return IgnoreRules(_read(_beneath(directory, path)), str(path))
    return IgnoreRules()


def _beneath(directory: Path, path: Path) -> Path:
    """Return where `path` leads to. Raises InputFileError if that is not in the directory."""
    try:
        found = path.resolve(strict=True)
        is_inside = found.is_relative_to(directory.resolve())
    except OSError as error:
        raise host_error(f"{str(path)!r} cannot be read", error, InputFileError) from error
    except RuntimeError as error:
        raise InputFileError(f"{str(path)!r} is a loop of links") from error
    if not is_inside:
        raise InputFileError(
            f"{str(path)!r} is a link that leads out of its directory", hint="copy the file there"
        )
    return found


def _read(path: Path) -> bytes:
    try:
        text = read_regular(path.resolve(), MOST_TEXT + 1)
    except OSError as error:
        raise host_error(f"{str(path)!r} cannot be read", error, InputFileError) from error
    if len(text) > MOST_TEXT:
        raise InputFileError(f"{str(path)!r} has more than {format_size(MOST_TEXT)}")
    return text


def add_context(
    archive: tarfile.TarFile, name: str, directory: Path, rules: IgnoreRules
) -> Contents:
    """Add what the rules leave of `directory` to the archive, as the directory `name`.

    Links travel as links, and everything belongs to root. Raises InputFileError, HostDiskFullError.
    """
    try:
        root = filetree.open_directory(directory)
        try:
            return _Packing(archive, name, root).add(directory, rules)
        finally:
            os.close(root)
    except UnsafePathError as error:
        raise InputFileError(f"the context is refused: {error}", hint=_HINT) from error
    except OSError as error:
        raise _unreadable(directory, error) from error


def _unreadable(path: Path, error: OSError) -> BoincvmError:
    named = Path(os.fsdecode(error.filename)) if error.filename is not None else path
    what = f"the context's {str(named)!r} cannot be read"
    return host_error(what, error, InputFileError, hint=_HINT)


class _Packing:
    def __init__(self, archive: tarfile.TarFile, name: str, root: int) -> None:
        self._archive = archive
        self._name = name
        self._root = root
        self._files = 0
        self._size = 0

    def add(self, directory: Path, rules: IgnoreRules) -> Contents:
        self._add_member(tarfile.TarInfo(self._name), directory.stat(), tarfile.DIRTYPE)
        for path, status in _walk(directory, rules):
            self._files += 1
            if self._files > MOST_FILES:
                raise UnsafePathError(f"it has more than {MOST_FILES} files")
            self._add_one(directory, path, status)
            self._archive.members.clear()  # type: ignore[attr-defined]  # else names stay in memory
        return Contents(self._files, self._size)

    def _add_one(self, directory: Path, path: tuple[str, ...], status: os.stat_result) -> None:
        inner = "/".join(path)
        member = tarfile.TarInfo(f"{self._name}/{inner}")
        if stat.S_ISDIR(status.st_mode):
            self._add_member(member, status, tarfile.DIRTYPE)
        elif stat.S_ISLNK(status.st_mode):
            member.linkname = str(directory.joinpath(*path).readlink())
            self._add_member(member, status, tarfile.SYMTYPE)
        elif stat.S_ISREG(status.st_mode):
            self._add_file(member, inner)
        else:
            name = shown(os.fsencode(inner))
            raise UnsafePathError(f"{name} is neither a file, nor a directory, nor a link")

    def _add_member(self, member: tarfile.TarInfo, status: os.stat_result, kind: bytes) -> None:
        member.type, member.mode = kind, stat.S_IMODE(status.st_mode) & 0o777
        member.mtime = max(int(status.st_mtime), 0)
        self._archive.addfile(member)

    def _add_file(self, member: tarfile.TarInfo, inner: str) -> None:
        with os.fdopen(filetree.open_file(self._root, os.fsencode(inner)), "rb") as file:
            status = os.fstat(file.fileno())
            self._size += status.st_size
            if self._size > MOST_BYTES:
                raise UnsafePathError(f"its files have more than {format_size(MOST_BYTES)}")
            member.size, member.mode = status.st_size, stat.S_IMODE(status.st_mode) & 0o777
            member.mtime = max(int(status.st_mtime), 0)
            self._archive.addfile(member, file)


def _walk(
    directory: Path,
    rules: IgnoreRules,
    path: tuple[str, ...] = (),
    above: frozenset[int] = frozenset(),
) -> Iterator[tuple[tuple[str, ...], os.stat_result]]:
    """Yield what the rules leave beneath `path` in the directory, parents first, sorted by name."""
    if len(path) > MAXIMUM_DEPTH:
        name = shown(os.fsencode("/".join(path)))
        raise UnsafePathError(f"{name} is more than {MAXIMUM_DEPTH} directories deep")
    with os.scandir(directory.joinpath(*path)) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        below = (*path, name)
        fitting = rules.fitting(below, above)
        is_left_out = rules.leaves_out(fitting)
        status = directory.joinpath(*below).lstat()
        if not is_left_out:
            yield below, status
        if stat.S_ISDIR(status.st_mode) and not (is_left_out and not rules.has_exceptions):
            yield from _walk(directory, rules, below, fitting)
