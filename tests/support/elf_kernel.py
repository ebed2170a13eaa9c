"""The least ELF file that the boot loader takes for a kernel."""

import struct


def an_elf(
    *,
    entry: int | None = 0x100_0040,
    machine: bytes = b"\x7fELF\2\1",
    begin: int = 176,
    zeros: tuple[int, ...] = (),
) -> bytes:
    """Return a kernel of one segment at the offset `begin`, with an entry point in its notes.

    Before it come segments of that many zero bytes, each of a page of memory at 32 MiB.
    """
    code = b"the kernel's code" + bytes(4096)
    note = b"" if entry is None else struct.pack("<III4sI", 4, 4, 18, b"Xen\0", entry)
    headers = b"".join(
        struct.pack("<IIQQQQQQ", 1, 6, begin + 32, 0, 32 << 20, size, 4096, 0) for size in zeros
    )
    headers += struct.pack("<IIQQQQQQ", 1, 5, begin, 0, 0x100_0000, len(code), 1 << 20, 0)
    headers += struct.pack("<IIQQQQQQ", 4, 4, begin + len(code), 0, 0, len(note), len(note), 0)
    elf = machine.ljust(32, b"\0") + struct.pack("<Q", 64)
    elf = elf.ljust(54, b"\0") + struct.pack("<HH", 56, 2 + len(zeros))
    return (elf.ljust(64, b"\0") + headers).ljust(begin, b"\0") + code + note
