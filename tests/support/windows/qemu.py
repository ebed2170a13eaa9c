"""A home of boincvm on Windows with an image of this host, and QEMU for Windows."""

import os
from pathlib import Path

from boincvm.host.own_files import make_directory
from boincvm.hypervisor.disks import share_file
from boincvm.machine.golden.switch import SWITCH
from boincvm.project.bundle.archive import pack_programs
from support.bundles import made_qemu
from support.windows.packed_qemu import PACKED_QEMU
from support.windows.python import windows_path

_PLATFORM = "windows_x86_64"


def windows_home(directory: Path, image: Path) -> dict[str, str]:
    """Make a home in `directory` with an image of this host, and return the variables for that."""
    objects = directory / "data/images/objects" / image.name
    names = directory / "data/images/names"
    for made in (objects, names):
        make_directory(made)
    for file in image.iterdir():
        share_file(file, objects / file.name)
    (names / "base").write_text(image.name + "\n")
    return {
        "BOINCVM_HOME": windows_path(directory),
        SWITCH: os.environ[SWITCH],
    }


def qemu_of_host() -> dict[str, str]:
    """Return the variables by which Windows has QEMU among its programs."""
    return {"WINEPATH": windows_path(made_qemu(_PLATFORM))}


def qemu_of_app_version(directory: Path) -> dict[str, str]:
    """Return the variables by which slots get a file with QEMU, which Windows itself lacks."""
    packed = directory / "qemu.tar.xz"
    pack_programs(made_qemu(_PLATFORM), "qemu", packed, 0)
    return {PACKED_QEMU: windows_path(packed)}
