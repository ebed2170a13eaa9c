"""Unpack package files into a tree, without dpkg's database and without running anything."""

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path
from typing import IO, cast

from boincvm.errors import ImageBuildError
from boincvm.image.exclude import is_unread
from boincvm.image.manifest import Package
from boincvm.image.tools import search_path
from boincvm.image.tree import Tree, clean_name
from boincvm.tar_reader import Member, Readable, TarError, TarReader

_CHUNK = 1 << 20
_MOST_BYTES = 16 << 20
"""The largest control file, in bytes; digest lists of large packages have some MiB."""


@dataclass(frozen=True, slots=True)
class Control:
    """A package's description of itself."""

    text: str
    """The control file."""
    package: Package
    is_multi_arch: bool
    installed_size: int
    """Bytes."""
    files: Mapping[str, bytes]
    """All of the package's control files."""

    @property
    def wants_configuring(self) -> bool:
        """Tell whether installing the package takes more than unpacking its files.

        It does if a script of it runs at installation, or if it waits for files of other packages.
        """
        scripts = {"preinst", "postinst", "config"} & self.files.keys()
        return bool(scripts) or b"interest" in self.files.get("triggers", b"")


@contextmanager
def _tar_of(package: Path, part: str) -> Iterator[TarReader]:
    """Open one part of a package; `part` is dpkg-deb's --fsys-tarfile or --ctrl-tarfile.

    Raises ImageBuildError.
    """
    with subprocess.Popen(
        ["dpkg-deb", part, str(package)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": search_path(), "LC_ALL": "C.UTF-8"},
    ) as process:
        try:
            stream = cast(IO[bytes], process.stdout)
            yield TarReader(stream)
            while stream.read(_CHUNK):
                pass  # dpkg-deb reports whether the rest is sound
        except TarError as error:
            raise _damaged(package) from error
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise _damaged(package)


def _damaged(package: Path) -> ImageBuildError:
    return ImageBuildError(
        f"the package file {package} is damaged",
        hint=f"remove it and build again: rm '{package}'",
    )


def read_control(package: Path) -> Control:
    """Read a package's control data. Raises ImageBuildError."""
    files: dict[str, bytes] = {}
    with _tar_of(package, "--ctrl-tarfile") as archive:
        for member in archive:
            name = clean_name(os.fsdecode(member.name))
            if "/" not in name and member.kind == "file":
                files[name] = archive.read(_MOST_BYTES)
    text = files.get("control", b"").decode("utf-8", "replace").strip()
    fields = Parser().parsestr(text, headersonly=True)
    size = str(fields["Installed-Size"])
    return Control(
        text=text,
        package=Package(
            name=str(fields["Package"]),
            version=str(fields["Version"]),
            architecture=str(fields["Architecture"]),
            scripts="postinst" in files,
        ),
        is_multi_arch=fields["Multi-Arch"] == "same",
        installed_size=int(size) << 10 if size.isdecimal() and len(size) < 10 else 0,
        files=files,
    )


def read_controls(packages: list[Path]) -> list[Control]:
    """Read the control data of all packages, in their order."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(read_control, packages))


def files_of(
    package: Path, wanted: Callable[[str], bool]
) -> Iterator[tuple[str, Member, Readable | None]]:
    """Yield each wanted file's name, entry and content; use the content before taking the next.

    Raises ImageBuildError.
    """
    with _tar_of(package, "--fsys-tarfile") as archive:
        for member in archive:
            name = clean_name(os.fsdecode(member.name))
            if name and wanted(name):
                yield name, member, archive if member.kind == "file" else None


def unpack(package: Path, tree: Tree) -> list[str]:
    """Unpack `package` into `tree`, except files that exclude.py drops; return the files' names."""
    names = []
    for name, member, content in files_of(package, lambda name: not is_unread(name)):
        tree.add_member(name, member, content)
        names.append(name)
    return names
