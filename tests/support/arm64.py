"""Programs of AArch64 on this host: QEMU's emulation of user programs runs them."""

import subprocess
from pathlib import Path

import pytest

EMULATOR = "/usr/bin/qemu-aarch64-static"
_HEADER = (
    r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00",
    r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff",
)
"""How a program of AArch64 begins, and which bits of that count."""
_REGISTRATION = f":aarch64:M::{':'.join(_HEADER)}:{EMULATOR}:F"
"""See the kernel's documentation of binfmt_misc; F opens the emulator here and now."""
_SCRIPT = """\
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc &&
printf %s "$1" >/proc/sys/fs/binfmt_misc/register && shift && exec "$@"
"""
EMULATED = [
    *("unshare", "--user", "--map-root-user", "--mount"),
    *("sh", "-c", _SCRIPT, "sh", _REGISTRATION),
]
"""Begins a command that may start programs of AArch64, as on a host of that kind, in a user
namespace with a table of program formats of its own (Linux 6.7)."""

needs_own_formats = pytest.mark.skipif(
    subprocess.run([*EMULATED, "true"], check=False, capture_output=True).returncode != 0,
    reason="this host lets its users make no namespaces with program formats of their own",
)


def linked_with(file: Path) -> tuple[str, set[str]]:
    """Return an ELF file's machine, as readelf names it, and the libraries that it needs."""
    lines = subprocess.run(
        ["readelf", "--file-header", "--dynamic", file], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    (machine,) = (line.partition(":")[2].strip() for line in lines if "Machine:" in line)
    needed = {line.partition("[")[2].rstrip("]") for line in lines if "(NEEDED)" in line}
    return machine, needed
