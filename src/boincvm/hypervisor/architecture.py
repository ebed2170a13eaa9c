"""The processor architecture of a machine, which is the one that its kernel was compiled for."""

from __future__ import annotations

import os
from enum import Enum
from typing import TYPE_CHECKING

from boincvm.errors import HypervisorError
from boincvm.host.files import open_descriptor, read_at

if TYPE_CHECKING:
    from pathlib import Path

_HEAD = 64
"""Bytes of a kernel that are read: an ELF header, or that of an arm64 Image."""
_ELF = b"\x7fELF"
_ELF_MACHINE = slice(18, 20)
_IMAGE_MAGIC = slice(56, 60)
"""In an arm64 Image (the kernel's Documentation/arch/arm64/booting.rst)."""


class Architecture(Enum):
    """A processor architecture, by the name that `uname -m` prints."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"


_ELF_MACHINES = {62: Architecture.X86_64, 183: Architecture.AARCH64}
"""By e_machine of the ELF header (elf(5), the processors' ABI supplements)."""


def kernel_architecture(kernel: Path | None) -> Architecture:
    """Return the architecture that a kernel was compiled for; x86-64 if there is no kernel.

    A file of another kind counts as x86-64, too: the hypervisor tells what is wrong with it. Raises
    HypervisorError if the file cannot be read.
    """
    if kernel is None:
        return Architecture.X86_64
    try:
        descriptor = open_descriptor(kernel)
        try:
            head = read_at(descriptor, _HEAD, 0)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise HypervisorError(f"the kernel cannot be read: {error}") from error
    return head_architecture(head)


def head_architecture(head: bytes) -> Architecture:
    """Return the architecture of a kernel that begins with these bytes."""
    if head[_IMAGE_MAGIC] == b"ARM\x64":
        return Architecture.AARCH64
    machine = int.from_bytes(head[_ELF_MACHINE], "little") if head.startswith(_ELF) else 0
    return _ELF_MACHINES.get(machine, Architecture.X86_64)
