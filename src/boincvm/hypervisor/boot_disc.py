"""The boot disc: a CD from which a computer's firmware starts an image's kernel.

VirtualBox and VMware cannot be given a kernel, only a disk. The firmware loads our loader
(boot_loader.py) from the disc (El Torito, without emulation), and that the kernel.

    sector (2048 bytes)   content
    16, 17, 18            the disc's descriptors (ISO 9660), which name no files
    19                    the boot catalog, which names the loader
    20 to 23              the loader and its tables, loaded to 0x7c00
    24 ...                the segments, each from a sector of its own
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from boincvm.host.files import create_new
from boincvm.hypervisor.boot_loader import (
    DISC_SECTOR,
    LENGTH,
    PlacedSegment,
    Segment,
    loader,
    read_content,
    read_kernel,
)

SECTOR = DISC_SECTOR
_CATALOG, _LOADER, _SEGMENTS = 19, 20, 24


def write_boot_disc(
    path: Path, kernel: Path, initrd: Path, command_line: str, *, mark_port: int = 0
) -> None:
    """Write a boot disc to `path`.

    `mark_port`: the port of the machine's serial line that gets MARK at each boot; 0 for none.

    Raises HypervisorError if the kernel cannot be started in this way, OSError.
    """
    read = read_kernel(read_content(kernel), kernel.name)
    placed = list(_placed([*read.segments, Segment(read.end, read_content(initrd))]))
    with create_new(path) as disc:
        _write(disc, placed, loader(read.entry, placed, command_line, mark_port=mark_port))


def _placed(segments: list[Segment]) -> Iterator[PlacedSegment]:
    """Yield each segment with its place on the disc."""
    sector = _SEGMENTS
    for segment in segments:
        count = -(-len(segment.content) // SECTOR)
        yield PlacedSegment(sector, count, segment)
        sector += count


def _write(disc: BinaryIO, placed: list[PlacedSegment], boot_loader: bytes) -> None:
    sectors = placed[-1].sector + placed[-1].sectors
    disc.seek(16 * SECTOR)
    disc.write(_volume_descriptor(sectors).ljust(SECTOR, b"\0"))
    boot = b"\0CD001\1" + b"EL TORITO SPECIFICATION".ljust(64, b"\0")
    disc.write((boot + struct.pack("<I", _CATALOG)).ljust(SECTOR, b"\0"))
    disc.write(b"\xffCD001\1".ljust(SECTOR, b"\0"))
    disc.write(_boot_catalog().ljust(SECTOR, b"\0"))
    disc.write(boot_loader)
    for sector, _, segment in placed:
        disc.seek(sector * SECTOR)
        disc.write(segment.content)
    disc.truncate(sectors * SECTOR)


def _volume_descriptor(sectors: int) -> bytes:
    """Return what makes it an ISO 9660 disc: a volume without files."""
    volume = bytearray(SECTOR)
    volume[:7] = b"\1CD001\1"
    volume[40:72] = b"BOINCVM".ljust(32)
    volume[80:88] = struct.pack("<I", sectors) + struct.pack(">I", sectors)
    for at, value in ((120, 1), (124, 1), (128, SECTOR)):
        volume[at : at + 4] = struct.pack("<H", value) + struct.pack(">H", value)
    volume[881] = 1
    return bytes(volume)


def _boot_catalog() -> bytes:
    """Return the catalog: one entry, which has the firmware load the loader to 0x7c00."""
    catalog = bytearray(64)
    catalog[0] = 1
    catalog[30:32] = b"\x55\xaa"
    checksum = -sum(struct.unpack_from("<16H", catalog)) & 0xFFFF
    struct.pack_into("<H", catalog, 28, checksum)
    blocks = LENGTH // 512
    struct.pack_into("<BBHBBHI", catalog, 32, 0x88, 0, 0, 0, 0, blocks, _LOADER)
    return bytes(catalog)
