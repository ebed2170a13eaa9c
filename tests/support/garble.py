"""A program for a guest that breaks the protocol of its own agent."""

import struct
from pathlib import Path

SEND_GARBAGE = """
for path in /proc/1/fd/*; do
    case $(readlink $path) in /dev/vport*) port=${path##*/};; esac
done
set --
while [ $# -lt $((port - 1)) ]; do set -- "$@" x; done
./garble "$@"
sleep 1000
"""
"""A script that runs ./garble so that it writes to the agent's port, and then stays."""


def write_garble(path: Path) -> None:
    """Write the program to `path`, executable."""
    path.write_bytes(_garble())
    path.chmod(0o755)


def _garble() -> bytes:
    """Make a program that writes garbage to a descriptor of process 1.

    The descriptor's number is the program's number of arguments. (A port opens only once, so a
    guest's program cannot do it more simply.)

    x86-64: pidfd_open(1, 0), pidfd_getfd(it, argc, 0), write(that, garbage, size), exit(0).
    """
    garbage = b"GARBAGE\nfrom:the guest\n\n\0"
    code = (
        b"\xbf\x01\x00\x00\x00\x31\xf6\xb8" + struct.pack("<I", 434) + b"\x0f\x05"
        b"\x89\xc7\x8b\x34\x24\x31\xd2\xb8" + struct.pack("<I", 438) + b"\x0f\x05"
        b"\x89\xc7\x48\x8d\x35" + struct.pack("<i", 21)
        + b"\xba" + struct.pack("<I", len(garbage)) + b"\xb8\x01\x00\x00\x00\x0f\x05"
        b"\x31\xff\xb8\x3c\x00\x00\x00\x0f\x05"
    )  # fmt: skip
    base, head = 0x400000, 64 + 56
    size = head + len(code) + len(garbage)
    elf = b"\x7fELF\x02\x01\x01" + bytes(9)
    elf += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + head, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    elf += struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    return elf + code + garbage
