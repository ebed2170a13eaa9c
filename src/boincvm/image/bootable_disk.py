"""A bootable disk: an image's root disk, its kernel and its initrd in one raw disk.

A computer's firmware (a BIOS) boots it without boincvm. The root disk is an ext4 file system
without partitions, which leaves the first 1024 bytes to a boot sector; all else lies behind it:

    0                     the root disk; its first sector is the boot sector
    a multiple of 1 MiB   the loader (hypervisor/boot_loader.py) and its tables
    8 KiB behind it       the index: what lies where
    16 KiB behind it      manifest, kernel and initrd, each from a multiple of 4 KiB; before the
                          initrd, and loaded with it, what cloud mode needs (image/cloud/early.py)

The kernel lies there as a file, from which the loader takes the segments; so an image can be made
of the disk again. Images have drivers for two kinds of disk, virtio's and NVMe.
"""

import os
import struct
from typing import NamedTuple

from boincvm.errors import UsageError
from boincvm.host.files import read_at, write_at
from boincvm.hypervisor import qcow2
from boincvm.hypervisor.architecture import Architecture
from boincvm.hypervisor.boot_loader import (
    LENGTH,
    PlacedSegment,
    Segment,
    loader,
    read_content,
    read_kernel,
)
from boincvm.hypervisor.kernel_arguments import JOURNAL, X86_64
from boincvm.image.cloud import early
from boincvm.image.manifest import MOST_BYTES
from boincvm.image.store import Image

SECTOR = 512
_MIB = 1 << 20
_PAGE = 4096
_NOTE_AT, _PARTITION_AT = 416, 446
_NOTE = "<8sQ"
_MAGIC = b"BOINCVM1"
"""In the boot sector, and with the loader's first sector behind it."""
_INDEX = "<16s7Q"
_INDEX_MAGIC = b"boincvm's index\n"
_INDEX_AT = LENGTH
_FILES_AT = 2 * LENGTH
_NON_FS_DATA = 0xDA
_MOST_FILE = 1 << 29
"""Bytes of a kernel or an initrd."""
SHELL = "setsid -c /bin/bash -l"
"""What the machine runs if it is told nothing else: a shell on its first serial line."""
_LONGEST_COMMAND = 1000

# Moves itself out of the way, loads the loader, and starts it. Notation: hypervisor/boot_loader.py.
CODE = """\
                        .code16
                        start:
fa                      cli
31c0                    xorw %ax, %ax
8ed8                    movw %ax, %ds
8ec0                    movw %ax, %es
8ed0                    movw %ax, %ss
bc007c                  movw $0x7c00, %sp
89e6                    movw %sp, %si
bf0006                  movw $0x600, %di
b90001                  movw $256, %cx
fc                      cld
f3a5                    rep movsw
ea1c060000              ljmp $0, $0x600 + moved - start
                        moved:
fb                      sti
be3006                  movw $0x630, %si  # the packet; %dl is the drive
b442                    movb $0x42, %ah
cd13                    int $0x13
7205                    jc fail
ea007c0000              ljmp $0, $0x7c00
                        fail:
f4                      hlt
ebfd                    jmp fail
"""
_PACKET_AT = 0x30


class Index(NamedTuple):
    """Where things lie on the disk; all in bytes."""

    root: int
    """Size of the root disk."""
    manifest_at: int
    manifest: int
    kernel_at: int
    kernel: int
    initrd_at: int
    initrd: int


class NotBootableError(ValueError):
    """The disk is not one that `write_bootable_disk` makes; the text says why."""


def machine_code() -> bytes:
    """Return the boot sector's machine code."""
    return bytes.fromhex("".join(line[:24].strip() for line in CODE.splitlines()))


def check_command(command: str) -> None:
    """Raise UsageError unless the kernel's command line can hold the machine's command."""
    if not command.isascii() or not command.isprintable() or '"' in command or not command.strip():
        raise UsageError(
            "the machine's command has other characters than printable ASCII, or quotation marks",
            hint="put it into a script in the image: boincvm image build --file SRC:DST",
        )
    if len(command) > _LONGEST_COMMAND:
        raise UsageError(
            f"the machine's command is longer than {_LONGEST_COMMAND} characters",
            hint="put it into a script in the image: boincvm image build --file SRC:DST",
        )


def kernel_arguments(command: str, *, is_for_clouds: bool = False) -> str:
    """Return the kernel's command line, with which the machine runs `command` and powers off.

    `is_for_clouds`: it is set up by a seed instead. It stops where it cannot do that: nobody would
    see why it starts again and again.
    """
    arguments = " ".join((*X86_64, JOURNAL, "panic=0", "console=ttyS0"))
    if is_for_clouds:
        return f"{arguments} {early.ARGUMENTS}"
    return f'{arguments} boincvm.shell="({command}); poweroff -f"'


def disk_room(image: Image) -> int:
    """Return how many bytes of a file system the image's bootable disk takes at most."""
    return image.manifest.size + 2 * MOST_BYTES + 2 * _MIB


def write_bootable_disk(
    image: Image, target: int, command: str = SHELL, *, is_for_clouds: bool = False
) -> int:
    """Write the bootable disk of `image` to the new file with the descriptor `target`.

    `command`: what the machine runs, before it powers off. `is_for_clouds`: a seed says what it is
    and does. Returns the disk's size in bytes. Raises UsageError for an image that no firmware
    boots, ImageBuildError, HypervisorError, DiskRefusedError, OSError.
    """
    check_command(command)
    if image.architecture is not Architecture.X86_64:
        raise UsageError(
            f"image {image.name} is for {image.architecture.value}, and only disks for x86_64 are"
            " made bootable",
            hint="boincvm image build --architecture amd64",
        )
    kernel, initrd = read_content(image.kernel), read_content(image.initrd)
    manifest = image.manifest.encode()
    root = qcow2.write_raw(image.root, target)
    begin = _rounded(root, _MIB)
    manifest_at = begin + _FILES_AT
    kernel_at = _rounded(manifest_at + len(manifest), _PAGE)
    first_at = _rounded(kernel_at + len(kernel), _PAGE)
    first = early.early_archive() if is_for_clouds else b""
    first = first.ljust(_rounded(len(first), _PAGE), b"\0")
    initrd_at = first_at + len(first)
    end = _rounded(initrd_at + len(initrd), _PAGE)
    read = read_kernel(kernel, image.kernel.name)
    placed = []
    for segment in read.segments:
        at = kernel_at + segment.offset
        if not _is_alone(kernel, segment):
            at, end = end, _rounded(end + len(segment.content), _PAGE)
            write_at(target, segment.content, at)
        placed.append(_placed(at, segment))
    placed.append(_placed(first_at, Segment(read.end, first + initrd)))
    arguments = kernel_arguments(command, is_for_clouds=is_for_clouds)
    boot_loader = loader(read.entry, placed, arguments, sector=SECTOR)
    index = Index(root, manifest_at, len(manifest), kernel_at, len(kernel), initrd_at, len(initrd))
    size = _rounded(end, _MIB)
    for at, content in (
        (0, _boot_sector(begin // SECTOR, size // SECTOR)),
        (begin, boot_loader),
        (begin + _INDEX_AT, struct.pack(_INDEX, _INDEX_MAGIC, *index)),
        (manifest_at, manifest),
        (kernel_at, kernel),
        (first_at, first + initrd),
    ):
        write_at(target, content, at)
    os.ftruncate(target, size)
    return size


def _rounded(size: int, unit: int) -> int:
    return size + -size % unit


def _is_alone(kernel: bytes, segment: Segment) -> bool:
    """Tell whether the sectors of the kernel's file that hold the segment hold nothing else."""
    end = segment.offset + len(segment.content)
    return segment.offset % SECTOR == 0 and not any(kernel[end : _rounded(end, SECTOR)])


def _placed(at: int, segment: Segment) -> PlacedSegment:
    return PlacedSegment(at // SECTOR, -(-len(segment.content) // SECTOR), segment)


def _boot_sector(first: int, end: int) -> bytes:
    """Return the boot sector; its one partition begins with the loader, and ends at `end`."""
    sector = bytearray(SECTOR)
    code = machine_code()
    sector[: len(code)] = code
    struct.pack_into("<BBHHHQ", sector, _PACKET_AT, 16, 0, LENGTH // SECTOR, 0x7C00, 0, first)
    struct.pack_into(_NOTE, sector, _NOTE_AT, _MAGIC, first)
    no_cylinders = b"\xfe\xff\xff"
    partition = struct.pack("<B3sB3s", 0x80, no_cylinders, _NON_FS_DATA, no_cylinders)
    sector[_PARTITION_AT : _PARTITION_AT + 16] = partition + struct.pack("<II", first, end - first)
    sector[510:] = b"\x55\xaa"
    return bytes(sector)


def read_index(disk: int) -> Index:
    """Read and check the index of the raw disk with the descriptor `disk`.

    Raises NotBootableError, OSError.
    """
    size = os.fstat(disk).st_size
    magic, first = struct.unpack(_NOTE, read_at(disk, 16, _NOTE_AT).ljust(16, b"\0"))
    if magic != _MAGIC:
        raise NotBootableError("it has no boot sector of boincvm")
    begin = first * SECTOR
    length = struct.calcsize(_INDEX)
    content = read_at(disk, length, begin + _INDEX_AT) if begin < size else b""
    magic, *fields = struct.unpack(_INDEX, content.ljust(length, b"\0"))
    index = Index(*fields)
    if magic != _INDEX_MAGIC:
        raise NotBootableError("it has no index of boincvm's files")
    files = (
        (index.manifest_at, index.manifest, MOST_BYTES),
        (index.kernel_at, index.kernel, _MOST_FILE),
        (index.initrd_at, index.initrd, _MOST_FILE),
    )
    if not 0 < index.root <= begin or index.root % SECTOR:
        raise NotBootableError("its index is invalid")
    for at, file_size, most in files:
        if not 0 < file_size < most or not begin <= at <= size - file_size:
            raise NotBootableError("its index is invalid")
    return index
