"""The machine that the acceleration probe boots: a kernel, and one program that says that it runs.

How it says so depends on the architecture, and nothing else that QEMU does looks like it.
"""

from __future__ import annotations

import struct
from pathlib import Path

from boincvm.hypervisor.architecture import Architecture
from boincvm.hypervisor.qemu import command as qemu_command
from boincvm.hypervisor.qemu.target import X86_64, Target

_EXIT_PORT = 0xF4
_SENT = 0x2A
_STATUS = _SENT << 1 | 1
"""x86-64: QEMU's exit status, which isa-debug-exit makes of the byte sent to its port."""
_WORD = b"boincvm: this kernel runs programs\n"
"""AArch64, which has no such port: a line on the console, before the guest powers itself off."""
_BASE = 0x400000
"""Where the program is loaded."""


def trial_command(accelerator: str, kernel: Path, initrd: str, target: Target) -> list[str]:
    """Return a QEMU command that shows whether `kernel` runs programs under that accelerator.

    `initrd` is the file with the content of `trial_initrd(target)`. Raises HypervisorMissingError.
    """
    return [
        *qemu_command.begin_command(target),
        *qemu_command.base_options(accelerator, target=target),
        "-m", "128M",
        "-kernel", str(kernel),
        "-initrd", initrd,
        "-append", " ".join(target.kernel_arguments),
        *(
            ("-device", f"isa-debug-exit,iobase={_EXIT_PORT:#x},iosize=4")
            if target is X86_64
            else ("-serial", "stdio")
        ),
    ]  # fmt: skip


def has_run(status: int, output: bytes, target: Target) -> bool:
    """Tell whether the program ran, from QEMU's exit status and all its output."""
    if target is X86_64:
        return status == _STATUS
    return status == 0 and _WORD.strip() in output


def trial_initrd(target: Target) -> bytes:
    """Return a cpio archive ("newc") whose /init is the program."""
    program = _PROGRAMS[target.architecture]
    return _cpio("init", 0o100755, program) + _cpio("TRAILER!!!", 0, b"")


def _elf(machine: int, code: bytes) -> bytes:
    """Return an ELF file of one segment, which begins with its first instruction."""
    head = 64 + 56
    size = head + len(code)
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    elf = identity + struct.pack(
        "<HHIQQQIHHHHHH", 2, machine, 1, _BASE + head, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    return elf + struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000) + code


def _x86_64() -> bytes:
    """Return iopl(3); out 0xf4, al; then wait forever."""
    return _elf(
        62,
        b"\xbf\x03\x00\x00\x00"  # mov edi, 3
        b"\xb8\xac\x00\x00\x00"  # mov eax, 172 (iopl)
        b"\x0f\x05"  # syscall
        + bytes([0xB0, _SENT, 0xE6, _EXIT_PORT])  # mov al, …; out …, al
        + b"\xeb\xfe",  # jmp to itself
    )


def _aarch64() -> bytes:
    """Return write(1, the word); reboot(power off); then wait forever."""
    before = [
        *_load(0, 1),
        _ADR_X1 | 16 << 5,  # the word, 16 instructions on
        *_load(2, len(_WORD)),
        *_load(8, 64),  # write
        _SVC,
        *_load(0, 0xFEE1DEAD),
        *_load(1, 0x28121969),
        *_load(2, 0x4321FEDC),  # LINUX_REBOOT_CMD_POWER_OFF
        *_load(8, 142),  # reboot
        _SVC,
        _B_TO_ITSELF,
    ]
    return _elf(183, struct.pack(f"<{len(before)}I", *before) + _WORD)


_ADR_X1, _SVC, _B_TO_ITSELF = 0x10000001, 0xD4000001, 0x14000000


def _load(register: int, value: int) -> list[int]:
    """Return the instructions, movz and movk, that load a register with 32 bits."""
    return [
        0xD2800000 | (value & 0xFFFF) << 5 | register,
        0xF2A00000 | (value >> 16) << 5 | register,
    ]


_PROGRAMS = {Architecture.X86_64: _x86_64(), Architecture.AARCH64: _aarch64()}


def _cpio(name: str, mode: int, data: bytes) -> bytes:
    fields = [1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
