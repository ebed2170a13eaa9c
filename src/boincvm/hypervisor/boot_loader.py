"""The loader with which a computer's firmware starts an image's kernel from a disc or a disk.

The kernel of an image is an ELF file that is entered by its PVH entry point, as under QEMU (Xen's
docs/misc/pvh.pandoc; the boot protocol of a bzImage would need a kernel that unpacks itself, which
takes long in VirtualBox's interpreter). The firmware has loaded the loader to 0x7c00; the loader
reads the kernel's segments and the initrd, asks the firmware what memory there is, and enters the
kernel. Where a hypervisor cannot be told to end a machine that reboots, the loader first writes
MARK to a serial port: a second one means that the guest has rebooted.
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from boincvm.errors import HypervisorError
from boincvm.host.files import open_regular

_LARGEST_FILE = 1 << 29
_MOST_HEADERS = 64
_PT_LOAD, _PT_NOTE = 1, 4
_PVH_ENTRY = (b"Xen\0", 18)
"""Name and type of the ELF note with the PVH entry point."""
_PVH_MAGIC = 0x336EC578

# Where things lie in the machine's memory. The loader's code knows these addresses.
_BASE = 0x7C00
LENGTH = 0x2000
_MARK_PORT = 0x7F04
_ENTRY, _PACKET, _MOVES, _GDT_REGISTER, _GDT = 0x7F08, 0x7F10, 0x7F20, 0x7F50, 0x7F60
_TABLE, _START_INFO, _MODULES, _MEMORY_MAP, _COMMAND_LINE = 0x8000, 0x8100, 0x8180, 0x8200, 0x8800
_BUFFER = 0x10000
_MOST_SEGMENTS = 16
MARK = b"\5"
"""What the loader writes to a serial port, if it was given one."""
_LONGEST_COMMAND_LINE = 2048  # the kernel takes no more (COMMAND_LINE_SIZE)
DISC_SECTOR = 2048
"""Bytes of a CD's sector, for which the code is written."""
_BUFFER_SIZE = 0x8000
_SECTORS_AT_A_TIME = bytes.fromhex("66b810000000")
_WORDS_OF_A_SECTOR = bytes.fromhex("c1e10a")
"""Instructions that another size of sectors changes: how many are read at a time, and the shift
that makes 16-bit words of them."""

# The machine code, and what it was assembled from, in the syntax of GNU as; a test compares them.
CODE = """\
                        .code16
                        start:
fa                      cli
31c0                    xorw %ax, %ax
8ed8                    movw %ax, %ds
8ec0                    movw %ax, %es
8ed0                    movw %ax, %ss
bc007c                  movw $0x7c00, %sp
fb                      sti
fc                      cld
ea137c0000              ljmp $0, $0x7c00 + begin - start
                        begin:
8816007f                movb %dl, 0x7f00  # the drive
8b16047f                movw 0x7f04, %dx  # the serial port that is told, if any
85d2                    testw %dx, %dx
7403                    jz load
b005                    movb $5, %al
ee                      outb %al, %dx
                        load:
bb0080                  movw $0x8000, %bx
                        segment:  # reads one segment, at most 16 sectors at a time
668b4f04                movl 4(%bx), %ecx
6685c9                  testl %ecx, %ecx
7463                    jz memory
66b810000000            movl $16, %eax
6639c1                  cmpl %eax, %ecx
7303                    jae read
6689c8                  movl %ecx, %eax
                        read:
a3127f                  movw %ax, 0x7f12
668b17                  movl (%bx), %edx
668916187f              movl %edx, 0x7f18
660107                  addl %eax, (%bx)
66294704                subl %eax, 4(%bx)
50                      pushw %ax
b442                    movb $0x42, %ah
8a16007f                movb 0x7f00, %dl
be107f                  movw $0x7f10, %si
cd13                    int $0x13  # read to 0x10000
59                      popw %cx
0f829700                jc fail
c1e10a                  shlw $10, %cx
668b4708                movl 8(%bx), %eax
a33a7f                  movw %ax, 0x7f3a
66c1e810                shrl $16, %eax
a23c7f                  movb %al, 0x7f3c
88263f7f                movb %ah, 0x7f3f
be207f                  movw $0x7f20, %si
b487                    movb $0x87, %ah
cd15                    int $0x15
7279                    jc fail
6681470800800000        addl $0x8000, 8(%bx)
66837f0400              cmpl $0, 4(%bx)
7599                    jne segment
83c30c                  addw $12, %bx
eb94                    jmp segment
                        memory:  # asks what memory there is
6631db                  xorl %ebx, %ebx
bf0082                  movw $0x8200, %di
                        range:
66b820e80000            movl $0xe820, %eax
66ba50414d53            movl $0x534d4150, %edx
66b914000000            movl $20, %ecx
cd15                    int $0x15
721b                    jc kernel
66c7451400000000        movl $0, 20(%di)
83c718                  addw $24, %di
66ff063081              incl 0x8130
81ff0087                cmpw $0x8700, %di
7305                    jae kernel
6685db                  testl %ebx, %ebx
75cf                    jnz range
                        kernel:  # opens the gate A20, and enters the kernel
fa                      cli
e492                    inb $0x92, %al
0c02                    orb $2, %al
e692                    outb %al, $0x92
0f0116507f              lgdt 0x7f50
0f20c0                  movl %cr0, %eax
0c01                    orb $1, %al
0f22c0                  movl %eax, %cr0
eae17c0800              ljmp $8, $0x7c00 + protected - start
                        .code32
                        protected:
66b81000                movw $16, %ax
8ed8                    movw %ax, %ds
8ec0                    movw %ax, %es
8ed0                    movw %ax, %ss
bb00810000              movl $0x8100, %ebx
ff25087f0000            jmp *0x7f08
                        .code16
                        fail:
b0fe                    movb $0xfe, %al
e664                    outb %al, $0x64
f4                      hlt
ebf9                    jmp fail
"""


class Segment(NamedTuple):
    """Bytes to be loaded to a physical address."""

    address: int
    content: bytes
    offset: int = 0
    """Where they are in the kernel's file."""


class PlacedSegment(NamedTuple):
    """Where a segment lies on the disc or disk."""

    sector: int
    sectors: int
    segment: Segment


class Kernel(NamedTuple):
    """What the loader must know of a kernel."""

    entry: int
    """The physical address of its PVH entry point."""
    segments: tuple[Segment, ...]
    end: int
    """The first physical address that it does not need."""


def machine_code(sector: int = DISC_SECTOR) -> bytes:
    """Return the loader's machine code for sectors of that many bytes."""
    code = bytes.fromhex("".join(line[:24].strip() for line in CODE.splitlines()))
    at_a_time, words = _BUFFER_SIZE // sector, (sector // 2).bit_length() - 1
    code = code.replace(_SECTORS_AT_A_TIME, b"\x66\xb8" + struct.pack("<I", at_a_time))
    return code.replace(_WORDS_OF_A_SECTOR, b"\xc1\xe1" + bytes([words]))


def read_content(path: Path) -> bytes:
    """Return the content of a kernel or an initrd. Raises HypervisorError, OSError."""
    with open_regular(path) as file:
        content = file.read(_LARGEST_FILE)
    if len(content or b"") == _LARGEST_FILE:
        raise HypervisorError(f"{path.name} is too large to be booted from a disc")
    return content or b""


def read_kernel(content: bytes, name: str) -> Kernel:
    """Return what the loader must know of the ELF file `name`. Raises HypervisorError."""
    if content[:6] != b"\x7fELF\2\1" or len(content) < 64:
        raise HypervisorError(f"{name} is not a 64-bit ELF file, so a boot disc cannot start it")
    (headers,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    entry, segments, end = 0, [], 0
    if count > _MOST_HEADERS or size < 56 or headers + count * size > len(content):
        raise HypervisorError(f"{name} is damaged: its program headers are not in the file")
    for at in range(headers, headers + count * size, size):
        kind, _, offset, _, address, length, memory, _ = struct.unpack_from(
            "<IIQQQQQQ", content, at
        )
        part = content[offset : offset + length]
        if len(part) != length:
            raise HypervisorError(f"{name} is damaged: a segment is not in the file")
        if kind == _PT_LOAD:
            # A new machine's memory is zero already. In the loader's table, an empty segment would
            # be the end.
            if written := part.rstrip(b"\0"):
                segments.append(Segment(address, written, offset))
            end = max(end, address + max(memory, length))
        elif kind == _PT_NOTE:
            entry = entry or _entry_in(part)
    if not entry or not segments or len(segments) >= _MOST_SEGMENTS or end >= 1 << 31:
        raise HypervisorError(
            f"{name} has no PVH entry point (CONFIG_PVH), so a boot disc cannot start it"
        )
    return Kernel(entry, tuple(segments), end + -end % (1 << 20))


def _entry_in(notes: bytes) -> int:
    """Return the PVH entry point that an ELF file's notes tell, 0 if none does."""
    at = 0
    while at + 12 <= len(notes):
        name, length, kind = struct.unpack_from("<III", notes, at)
        start = at + 12 + name + -name % 4
        if (notes[at + 12 : at + 12 + name], kind) == _PVH_ENTRY and start + 4 <= len(notes):
            return int(struct.unpack_from("<I", notes, start)[0])
        at = start + length + -length % 4
    return 0


def loader(
    entry: int,
    placed: Sequence[PlacedSegment],
    command_line: str,
    *,
    mark_port: int = 0,
    sector: int = DISC_SECTOR,
) -> bytes:
    """Return the loader with all its tables: the bytes at 0x7c00 when it begins.

    `placed`: the kernel's segments, and the initrd last. `sector`: bytes of a sector. Raises
    HypervisorError.
    """
    memory = bytearray(LENGTH)

    def put(address: int, content: bytes) -> None:
        memory[address - _BASE : address - _BASE + len(content)] = content

    arguments = command_line.encode("ascii")
    if len(arguments) >= _LONGEST_COMMAND_LINE:
        raise HypervisorError(f"the kernel's arguments are too long: {len(arguments)} bytes")
    put(_BASE, machine_code(sector))
    put(_MARK_PORT, struct.pack("<H", mark_port))
    put(_ENTRY, struct.pack("<I", entry))
    put(_PACKET, struct.pack("<BBHHHQ", 16, 0, 0, 0, _BUFFER >> 4, 0))
    # For INT 15h AH=87h: from the buffer; the loader fills in where to.
    put(_MOVES + 16, struct.pack("<HHBBH", 0xFFFF, _BUFFER & 0xFFFF, _BUFFER >> 16, 0x93, 0))
    put(_MOVES + 24, struct.pack("<HHBBH", 0xFFFF, 0, 0, 0x93, 0))
    # Flat segments of 4 GiB for code and data.
    put(_GDT_REGISTER, struct.pack("<HI", 3 * 8 - 1, _GDT))
    put(_GDT + 8, struct.pack("<QQ", 0x00CF9B000000FFFF, 0x00CF93000000FFFF))
    for number, (first, count, segment) in enumerate(placed):
        put(_TABLE + 12 * number, struct.pack("<III", first, count, segment.address))
    initrd = placed[-1].segment
    put(
        _START_INFO,
        struct.pack(
            "<IIIIQQQQII",
            *(_PVH_MAGIC, 1, 0, 1, _MODULES, _COMMAND_LINE, 0, _MEMORY_MAP, 0, 0),
        ),
    )
    put(_MODULES, struct.pack("<QQQQ", initrd.address, len(initrd.content), 0, 0))
    put(_COMMAND_LINE, arguments + b"\0")
    return bytes(memory)
