"""The processor architectures that QEMU runs for us, its targets, and what differs between them."""

from __future__ import annotations

from typing import NamedTuple

from boincvm.hypervisor.architecture import Architecture
from boincvm.hypervisor.kernel_arguments import COMMON


class Target(NamedTuple):
    """How QEMU runs machines of one architecture."""

    architecture: Architecture
    program: str
    package: str
    """Debian's package of the program."""
    machine: str
    """QEMU's machine type."""
    options: str
    """Of the machine type."""
    display_options: str
    """The same for a machine with a screen; empty if there is none."""
    cpus: dict[str, str]
    """The guest's CPU, by accelerator."""
    kernel_arguments: tuple[str, ...]

    @property
    def install_hint(self) -> str:
        return f"install it: apt-get install --no-install-recommends {self.package} qemu-utils"


_Q35_OPTIONS = "vmport=off,sata=off,smbus=off,i8042=off,usb=off,graphics=off,smm=off,hpet=off"

X86_64 = Target(
    Architecture.X86_64,
    "qemu-system-x86_64",
    "qemu-system-x86",
    # q35 calibrates its timers by hardware that microvm lacks: without the host's exact TSC
    # frequency, two of three microvm boots hung on a loaded machine, and q35 is no slower.
    "q35",
    _Q35_OPTIONS,
    # The firmware brings up the screen's text mode, which is all that the kernel needs.
    _Q35_OPTIONS.replace("i8042=off", "i8042=on").replace("graphics=off,", ""),
    # With ERMS (or FSRM) the guest's kernel clears and copies memory byte by byte, which under
    # emulation takes five times as long (docs/benchmarks.md).
    {"kvm": "host", "tcg": "max,-erms,-fsrm"},
    (*COMMON, "console=ttyS0", "reboot=t"),
)
AARCH64 = Target(
    Architecture.AARCH64,
    "qemu-system-aarch64",
    "qemu-system-arm",
    "virt",
    "gic-version=3",
    "",
    {"tcg": "neoverse-n1"},
    # A kernel at a random address relocates itself, and has two sets of page tables (KPTI).
    (*COMMON, "console=ttyAMA0", "nokaslr"),
)
TARGETS = {target.architecture: target for target in (X86_64, AARCH64)}
