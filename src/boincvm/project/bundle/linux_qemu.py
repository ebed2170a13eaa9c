"""The folder with QEMU for Linux: Debian's build, with the libraries that it needs.

    qemu-system-*, qemu-img    the same program (launcher/qemu.c), which goes by its name
    lib/                       what loads them, as Debian's glibc has it, and libraries
    lib/programs/              QEMU's programs
    lib/modules/               the part of QEMU that emulates, where it is one of its own
    share/qemu/                firmware
    licences/                  the licence of each part, and its source

As with the folder for volunteers nothing depends on the host's glibc. docs/volunteer-folder.md says
why this is no build of our own.
"""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from boincvm.errors import ImageBuildError
from boincvm.image.tools import run_tool
from boincvm.project.bundle.inputs import DebianPackage, InputCache, pinned_qemu
from boincvm.project.bundle.launchers import qemu_launcher
from boincvm.project.bundle.linux import find_library, licence_text, unpack_packages
from boincvm.project.bundle.linux_platforms import LinuxPlatform

_OFFER = """\
QEMU and most of the libraries here are free software under the GPL, the LGPL and other licences,
which are in this directory. They are Debian's builds, unchanged. Who passes them on has to offer
their sources as well: these packages of Debian 12, each with

    apt-get source --download-only NAME=VERSION

or, if a mirror no longer has that version, from Debian's archive of former versions.

"""


def make_folder(platform: LinuxPlatform, folder: Path, cache: InputCache, temporary: Path) -> None:
    """Fill the new directory `folder`. `temporary`: a directory. Raises ImageBuildError."""
    programs = (platform.qemu, "qemu-img")
    packages = pinned_qemu(platform.architecture)
    root = temporary / "root"
    unpack_packages(packages, cache, root)
    for name in ("lib/programs", "lib/modules", "share/qemu/keymaps", "licences"):
        (folder / name).mkdir(parents=True)
    for name in programs:
        shutil.copy(root / "usr/bin" / name, folder / "lib/programs" / name)
    for name in platform.qemu_modules:
        shutil.copy(root / "usr/lib" / platform.libraries / "qemu" / name, folder / "lib/modules")
    for name in _needed(platform, folder.glob("lib/*/*"), root):
        shutil.copy(find_library(platform, root, name), folder / "lib" / name)
    for name in platform.firmware:
        shutil.copy(root / "usr/share" / name, folder / "share/qemu" / beneath(name))
    launcher = qemu_launcher(platform.compiler, temporary)
    for name in programs:
        shutil.copy(launcher, folder / name)
        shutil.copy(find_library(platform, root, platform.loader), folder / "lib" / name)
    for package in packages:
        shutil.copyfile(licence_text(root, package.name), folder / f"licences/{package.name}.txt")
    for text in (root / "usr/share/common-licenses").glob("*GPL-*"):
        shutil.copyfile(text, folder / "licences" / text.name)
    sources = sorted({source_of(package, cache) for package in packages})
    (folder / "licences/SOURCES.txt").write_text(_OFFER + "".join(f"{one}\n" for one in sources))


def beneath(firmware: str) -> str:
    """Return the name that a file of the firmware has for QEMU."""
    return firmware.partition("/")[2]


def _needed(platform: LinuxPlatform, files: Iterable[Path], root: Path) -> set[str]:
    """Return the names of all libraries that `files` need, directly or not."""
    waiting, found = list(files), set[str]()
    while waiting:
        for name in needed_libraries(waiting.pop()) - found - {platform.loader}:
            found.add(name)
            waiting.append(find_library(platform, root, name))
    return found


def needed_libraries(file: Path) -> set[str]:
    """Return the names of the libraries that a program or a library is linked with.

    Raises ImageBuildError.
    """
    lines = run_tool(["readelf", "-d", file]).decode()  # which knows every processor
    return set(re.findall(r"\(NEEDED\) +Shared library: \[(.+)\]", lines))


def source_of(package: DebianPackage, cache: InputCache) -> str:
    """Return NAME=VERSION of a package's source, which may have another version than it."""
    fields = run_tool(["dpkg-deb", "-f", cache.debian(package), "Source", "Version"]).decode()
    table = dict(line.partition(": ")[::2] for line in fields.splitlines())
    _, _, version = table.get("Source", "").partition(" ")
    if not table.get("Version"):
        raise ImageBuildError(f"{package.file_name} does not say its version")
    return f"{package.source}={version.strip('()') or table['Version']}"
