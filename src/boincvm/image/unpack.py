"""From package files to a tree, without dpkg's database and without running anything."""

import subprocess
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path
from typing import IO

from boincvm.errors import ImageBuildError
from boincvm.image.manifest import Package
from boincvm.image.tools import search_path
from boincvm.image.tree import Tree, clean_name
from boincvm.image.trim import is_dropped

_SCRIPTS_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Control:
    """A package's control file, its fields, and its postinst script ("" if it has none)."""

    text: str
    package: Package
    postinst: str


@contextmanager
def _tar_of(package: Path, part: str) -> Iterator[tarfile.TarFile]:
    """`part` is dpkg-deb's --fsys-tarfile or --ctrl-tarfile. Raises ImageBuildError."""
    with subprocess.Popen(
        ["dpkg-deb", part, str(package)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": search_path(), "LC_ALL": "C.UTF-8"},
    ) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|", bufsize=1 << 20) as archive:
                yield archive
            if process.stdout is not None:
                process.stdout.read()
        except tarfile.TarError as error:
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
    """Raises ImageBuildError."""
    texts = {"control": "", "postinst": ""}
    with _tar_of(package, "--ctrl-tarfile") as archive:
        for member in archive:
            name = clean_name(member.name)
            if name in texts and member.isreg():
                stream = archive.extractfile(member)
                if stream is not None:
                    texts[name] = stream.read(_SCRIPTS_LIMIT).decode("utf-8", "replace")
    fields = Parser().parsestr(texts["control"], headersonly=True)
    return Control(
        text=texts["control"].strip(),
        package=Package(
            name=str(fields["Package"]),
            version=str(fields["Version"]),
            architecture=str(fields["Architecture"]),
            scripts=bool(texts["postinst"]),
        ),
        postinst=texts["postinst"],
    )


def read_controls(packages: list[Path]) -> list[Control]:
    """Of all packages, in their order."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(read_control, packages))


def files_of(
    package: Path, wanted: Callable[[str], bool]
) -> Iterator[tuple[str, tarfile.TarInfo, IO[bytes] | None]]:
    """Each wanted file's name, entry and content, to be used before the next is asked for.

    Raises ImageBuildError.
    """
    with _tar_of(package, "--fsys-tarfile") as archive:
        for member in archive:
            name = clean_name(member.name)
            if name and wanted(name):
                yield name, member, archive.extractfile(member) if member.isreg() else None


def unpack(package: Path, tree: Tree) -> None:
    """Put the files of `package` into `tree`, but for those that trim.py drops."""
    for name, member, content in files_of(package, lambda name: not is_dropped(name)):
        tree.add_member(name, member, content)
