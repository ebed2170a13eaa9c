"""Install a package in a running guest, and remove it again, without dpkg or pip.

    python3 -I -S boincvm_guest_package.py install FILE RECORD    a .deb, or a tarball of files
    python3 -I -S boincvm_guest_package.py remove RECORD

The files are installed below / (--root DIR: below DIR). The package's scripts are not run, and
owners and setuid bits are dropped. Each path is recorded in the directory RECORD before it is
changed, with the file that it replaces; so `remove` restores the former state, even after an
installation that was killed. Both may be repeated. The exit code is 0, or, with a line that says
why, 2 (arguments), 3 (damaged, or no package), 4 (forbidden contents) or 5 (a system error).
"""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zlib

TYPE_CHECKING = False  # `typing` is slow to import in an emulated machine; checkers know this name
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, BinaryIO, NoReturn

MAXIMUM_MEMBERS = 200_000
MAXIMUM_BYTES = 8 << 30
MAXIMUM_DEPTH, MAXIMUM_LINKS = 64, 40
CHUNK = 1 << 20
ARGUMENTS, DAMAGED, REFUSED, SYSTEM = 2, 3, 4, 5
LIBRARY = re.compile(r"\.so(\.[\w.]+)?$")
_NO_ZSTD = "Python here has no module for; pack it again with xz"
_UNREADABLE = (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, OSError, ValueError)


class PackageError(Exception):
    """An error that ends this program with an exit code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def refuse(name: str, why: str) -> NoReturn:
    raise PackageError(REFUSED, f"{name!a} {why}")


class Part(io.RawIOBase):
    """A part of a file: `size` bytes from `offset` on."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._left = file, size
        file.seek(offset)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._file.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


def files_of(package: BinaryIO, name: str) -> tuple[int, int]:
    """Return the offset and size of the tar archive with the files in the package."""
    total = package.seek(0, os.SEEK_END)
    package.seek(0)
    magic = package.read(21)
    if not magic.startswith(b"!<arch>\n"):
        return 0, total
    if magic != b"!<arch>\ndebian-binary":
        raise PackageError(DAMAGED, f"{name!a} is an ar archive, but no Debian package")
    offset = 8
    while offset < total:
        package.seek(offset)
        head = package.read(60)
        digits = head[48:58].strip()
        if head[58:] != b"`\n" or not digits.isdigit() or offset + 60 + int(digits) > total:
            break
        if head.startswith(b"data.tar"):
            return offset + 60, int(digits)
        offset += 60 + int(digits) + int(digits) % 2
    raise PackageError(DAMAGED, f"{name!a} is damaged: it has no whole data.tar in it")


def decompressed(package: BinaryIO, name: str) -> io.BufferedIOBase:
    """Return a stream of the decompressed tar archive."""
    offset, size = files_of(package, name)
    package.seek(offset)
    start = package.read(6)
    part = io.BufferedReader(Part(package, offset, size), CHUNK)
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=part)
    if start.startswith(b"BZh"):
        return bz2.BZ2File(part)
    if start == b"\xfd7zXZ\0":
        return lzma.LZMAFile(part)
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        raise PackageError(DAMAGED, f"{name!a} is compressed with zstd, which {_NO_ZSTD}")
    if size % 512:
        raise PackageError(DAMAGED, f"{name!a} is damaged or no package")
    return part


def members(package: BinaryIO, name: str) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yield each member while the archive is positioned at it, and read to the end of the file.

    So checksums at the end are verified.
    """
    try:
        stream = decompressed(package, name)
        with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # they would pile up
                yield archive, member
            while stream.read(CHUNK):
                pass
    except MemoryError:
        refuse(name, "has a member whose head needs more memory than there is")
    except _UNREADABLE as error:
        reason = str(error) or "it ends too early"
        raise PackageError(DAMAGED, f"{name!a} is damaged or no package: {reason}") from error


def parts_of(name: str) -> tuple[str, ...]:
    """Split a member's name, which may begin with / or ./; return () for the root itself."""
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts or "\0" in name or len(parts) > MAXIMUM_DEPTH:
        refuse(name, "is not a path beneath the root")
    return parts


def check(package: BinaryIO, name: str) -> None:
    """Check that all of the package may be installed. Raises PackageError."""
    count = total = 0
    links: set[tuple[str, ...]] = set()
    files: set[tuple[str, ...]] = set()
    for _, member in members(package, name):
        parts = parts_of(member.name)
        count, total = count + 1, total + (member.size if member.isreg() else 0)
        if count > MAXIMUM_MEMBERS or total > MAXIMUM_BYTES:
            refuse(name, f"has more than {MAXIMUM_MEMBERS} files, or more than 8 GiB of them")
        if any(parts[:depth] in links for depth in range(1, len(parts))):
            refuse(member.name, "leads through a link of the same package")
        if not parts and not member.isdir():
            refuse(member.name, "is the root, and no directory")
        if member.issym():
            check_link(member.name, parts, member.linkname)
            links.add(parts)
        elif member.islnk():
            if parts_of(member.linkname) not in files:
                refuse(member.name, "is a hard link to what the package does not hold before it")
            files.add(parts)
        elif member.isreg():
            files.add(parts)
        elif not member.isdir():
            refuse(member.name, "is neither file, directory nor link")


def check_link(name: str, parts: tuple[str, ...], target: str) -> None:
    """Check that a symbolic link does not lead above the root. Raises PackageError."""
    depths = [0 if target.startswith("/") else len(parts) - 1]
    for part in target.split("/"):
        if part not in ("", "."):
            depths.append(depths[-1] + (-1 if part == ".." else 1))
    if min(depths) < 0 or "\0" in target:
        refuse(name, f"is a symbolic link to {target!a}, which leads out")


def resolve(root: str, parts: tuple[str, ...]) -> str:
    """Return the path where a member is installed.

    Symbolic links that the system already had, such as /lib, are followed as for a process with
    this root: never out of it.
    """
    done: list[str] = []
    ahead = list(reversed(parts))
    followed = 0
    while ahead:
        part = ahead.pop()
        if part == "..":
            done = done[:-1]
        elif part not in ("", "."):
            path = os.path.join(root, *done, part)
            if not os.path.islink(path):
                done.append(part)
                continue
            followed += 1
            if followed > MAXIMUM_LINKS:
                refuse(path, "leads through too many links")
            target = os.readlink(path)
            done = [] if target.startswith("/") else done
            ahead += reversed(target.split("/"))
    return os.path.join(root, *done)


def remove_file(path: str) -> None:
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        pass


class Record:
    """The directory RECORD.

    `journal` has a line of JSON for each path that was created; `saved` has hard links to the
    files that were there before, so it must be on the same file system.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)
        self._journal = os.path.join(self.path, "journal")
        self.saved = os.path.join(self.path, "saved")
        self._count = 0
        self.has_libraries = False

    def note(self, path: str, *, directory: bool = False) -> str:
        """Record that `path` will be created, and save the existing file.

        Returns the temporary path at which to create it.
        """
        if path == self.path or path.startswith(self.path + "/"):
            refuse(path, "is the record of this installation")
        self._count += 1
        self.has_libraries |= bool(LIBRARY.search(path))
        temporary = os.path.join(os.path.dirname(path), f".boincvm-package-{self._count}")
        saved = os.path.join(self.saved, str(self._count))
        if not os.path.lexists(path):
            saved = ""
        elif os.path.isfile(path) or os.path.islink(path):
            os.link(path, saved, follow_symlinks=False)
        else:
            refuse(path, "is in the way, and neither file nor link")
        entry = {"path": path, "directory": directory, "temporary": temporary, "saved": saved}
        with open(self._journal, "a", encoding="ascii") as file:
            print(json.dumps(entry), file=file)
        return temporary

    def undo(self) -> None:
        """Restore all paths of the journal, the last one first. May be repeated at any point."""
        try:
            with open(self._journal, encoding="ascii") as file:
                # A line without an end was never acted upon.
                entries = [json.loads(line) for line in file if line.endswith("\n")]
        except FileNotFoundError:
            entries = []
        for entry in reversed(entries):
            self.has_libraries |= bool(LIBRARY.search(entry["path"]))
            restore(entry)
        if os.path.isdir(self.path):
            shutil.rmtree(self.saved, ignore_errors=True)
            remove_file(self._journal)
            os.rmdir(self.path)


def restore(entry: dict[str, Any]) -> None:
    path, saved = entry["path"], entry["saved"]
    remove_file(entry["temporary"])
    if entry["directory"]:
        try:
            os.rmdir(path)
        except OSError as error:  # what somebody put into it since is not ours to remove
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY):
                raise
    elif not saved:
        remove_file(path)
    elif os.path.lexists(saved):  # else it was restored before
        os.rename(saved, path)


def make_directory(record: Record, path: str, mode: int = 0o755) -> None:
    """Make a directory and its missing parents."""
    if os.path.isdir(path):
        return
    if os.path.lexists(path):
        refuse(path, "is in the way, and no directory")
    make_directory(record, os.path.dirname(path))
    record.note(path, directory=True)
    os.mkdir(path)
    os.chmod(path, mode)


def extract(record: Record, root: str, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    """Extract one member, which `check` has accepted."""
    parts = parts_of(member.name)
    if member.isdir():
        make_directory(record, resolve(root, parts), member.mode & 0o777)
        return
    parent = resolve(root, parts[:-1])
    make_directory(record, parent)
    path = os.path.join(parent, parts[-1])
    temporary = record.note(path)
    if member.issym():
        os.symlink(member.linkname, temporary)
    elif member.islnk():
        source = parts_of(member.linkname)
        os.link(os.path.join(resolve(root, source[:-1]), source[-1]), temporary)
    else:
        content = archive.extractfile(member)
        with open(temporary, "xb") as file:
            while content is not None and (data := content.read(CHUNK)):
                file.write(data)
            os.fchmod(file.fileno(), member.mode & 0o777)
    os.rename(temporary, path)
    remove_file(temporary)  # a rename to another name of the same file leaves it


def refresh_libraries(record: Record, root: str) -> None:
    """Run ldconfig if the package has libraries."""
    program = os.path.join(root, "sbin/ldconfig")
    if record.has_libraries and os.path.exists(program):
        done = subprocess.run([program, "-r", root], stderr=subprocess.PIPE, check=False)
        if done.returncode != 0:
            raise PackageError(SYSTEM, f"ldconfig failed: {done.stderr!a}")


def install(root: str, path: str, record: Record) -> None:
    with open(path, "rb") as package:
        check(package, path)
        record.undo()  # of another time
        os.makedirs(record.saved, 0o700)
        try:
            for archive, member in members(package, path):
                extract(record, root, archive, member)
            refresh_libraries(record, root)
        except BaseException:
            record.undo()
            raise


def main(arguments: list[str]) -> int:
    root = "/"
    if arguments[:1] == ["--root"] and len(arguments) > 1:
        root, arguments = os.path.realpath(arguments[1]), arguments[2:]
    try:
        match arguments:
            case ["install", path, directory]:
                install(root, path, Record(directory))
            case ["remove", directory]:
                record = Record(directory)
                record.undo()
                refresh_libraries(record, root)
            case _:
                raise PackageError(ARGUMENTS, "expected: install FILE RECORD, or remove RECORD")
    except (PackageError, *_UNREADABLE) as error:
        print(f"boincvm_guest_package: {error}", file=sys.stderr)
        return error.code if isinstance(error, PackageError) else SYSTEM
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
