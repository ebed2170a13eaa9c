"""The formats of disk images that other hypervisors read, and qemu-img, which converts them.

qemu-img is always told the format of a file: it would find out by itself from bytes that a guest
has written.
"""

import errno
import os
import re
import struct
from pathlib import Path
from typing import BinaryIO

from boincvm.errors import HostDiskFullError, HypervisorMissingError, UsageError
from boincvm.host.programs import find_program
from boincvm.image.tools import ToolError, run_tool

FORMATS = ("raw", "qcow2", "vdi", "vmdk", "vhdx", "ova")
_SUFFIXES = {".img": "raw", **{f".{name}": name for name in FORMATS}}
_OPTIONS = {"vhdx": ("block_size=1M",)}
"""How it is written where QEMU's default takes more room."""
STREAM = "subformat=streamOptimized"
"""How a VMDK file in an appliance is written: compressed, to be read from begin to end."""
_VDI_IDS, _VDI_LENGTH = 0x188, 0x1A8
_SECTOR = 512
_LONGEST_DESCRIPTION = 1 << 16


def format_of(path: Path) -> str:
    """Return the format that a file's name tells. Raises UsageError."""
    found = _SUFFIXES.get(path.suffix.lower())
    if found is None:
        raise UsageError(
            f"the name {path.name} tells no format of a disk",
            hint=f"give --format, which is one of {', '.join(FORMATS)}",
        )
    return found


def qemu_img() -> str:
    """Return the path of qemu-img. Raises HypervisorMissingError."""
    found = find_program("qemu-img")
    if found is None:
        raise HypervisorMissingError(
            "qemu-img, which converts disks, is not installed",
            hint="install it: apt-get install qemu-utils; or use the format raw, which needs none",
        )
    return found


def run_qemu_img(*arguments: str | Path) -> bytes:
    """Run qemu-img, which ends with us, and return what it prints.

    Each Path is given as an absolute one: `a:b` would be a protocol for qemu-img. Raises
    HypervisorMissingError, HostDiskFullError, ToolError.
    """
    given = [word.absolute() if isinstance(word, Path) else word for word in arguments]
    try:
        return run_tool([qemu_img(), *given], dies_with_us=True)
    except ToolError as error:
        if os.strerror(errno.ENOSPC) in error.log:
            raise HostDiskFullError(
                "the disk became full while qemu-img wrote to it",
                hint="free some space and try again",
            ) from error
        raise


def convert_from_raw(raw: Path, target: Path, disk_format: str, *options: str) -> None:
    """Convert a raw disk. Raises HypervisorMissingError, HostDiskFullError, ToolError."""
    given = [
        word for option in (*_OPTIONS.get(disk_format, ()), *options) for word in ("-o", option)
    ]
    run_qemu_img("convert", "-q", "-f", "raw", "-O", disk_format, *given, raw, target)


def make_reproducible(path: Path, disk_format: str, digest: str) -> None:
    """Replace random identifiers of a file that qemu-img has written.

    `digest`: hexadecimal; they are made of it. Raises OSError.
    """
    with path.open("r+b") as file:
        if disk_format == "vdi":
            file.seek(_VDI_IDS)
            file.write(bytes.fromhex(digest)[: _VDI_LENGTH - _VDI_IDS])
        elif disk_format == "vmdk":
            _describe_vmdk(file, digest)


def _describe_vmdk(file: BinaryIO, digest: str) -> None:
    """Give a VMDK file an id of its content, and a name of its own in place of a temporary one."""
    at, size = (_SECTOR * sectors for sectors in struct.unpack("<QQ", file.read(44)[28:]))
    file.seek(at)
    # qemu-img may leave the end of a longer text behind its own.
    text = file.read(min(size, _LONGEST_DESCRIPTION)).partition(b"\0")[0]
    text = re.sub(rb"(?m)^CID=.*$", b"CID=" + digest[:8].encode(), text)
    text = re.sub(rb'(?m)^(RW \d+ SPARSE) ".*"$', rb'\1 "disk.vmdk"', text)
    file.seek(at)
    file.write(text.ljust(size, b"\0"))
