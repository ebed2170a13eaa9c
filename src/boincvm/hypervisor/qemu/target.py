"""The processor architectures that QEMU runs for us, its targets, and what differs between them."""

from __future__ import annotations

from typing import NamedTuple

from boincvm.host.programs import HAS_WINGET
from boincvm.hypervisor import kernel_arguments
from boincvm.hypervisor.architecture import Architecture


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
    """The guest's CPU, by accelerator; one that is not named is not used for such machines."""
    kernel_arguments: tuple[str, ...]
    has_page_size: bool = False
    """Whether its pages may be of several sizes; then a saved state says which."""

    def has_hpet(self, accelerator: str, cpus: int) -> bool:
        """Return whether a new machine has an HPET, which then wakes its processor.

        Linux measures the speed of the timer in an emulated processor for 0.1 s of each boot, but
        an HPET has a register that says its speed. There is one for the whole machine, so machines
        with several processors do without; under KVM the processor's timer needs no measuring.
        """
        return self.architecture is Architecture.X86_64 and accelerator == "tcg" and cpus == 1

    def machine_options(self, *, has_hpet: bool, has_display: bool = False) -> str:
        """Return the options of the machine type."""
        options = self.display_options if has_display else self.options
        return options.replace("hpet=off", "hpet=on") if has_hpet else options

    def arguments(self, *, has_hpet: bool) -> tuple[str, ...]:
        """Return what the guest's kernel is told."""
        return (*self.kernel_arguments, "nolapic_timer") if has_hpet else self.kernel_arguments

    @property
    def install_hint(self) -> str:
        if HAS_WINGET:
            return "install it: winget install --exact --id SoftwareFreedomConservancy.QEMU"
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
    # WHPX has no "host", and "max" hung there (QEMU's issues 4836 and 1043).
    {"kvm": "host", "hvf": "host", "whpx": "qemu64", "tcg": "max,-erms,-fsrm"},
    (*kernel_arguments.X86_64, "console=ttyS0", "reboot=t"),
)
AARCH64 = Target(
    Architecture.AARCH64,
    "qemu-system-aarch64",
    "qemu-system-arm",
    "virt",
    "gic-version=3",
    "",
    {"kvm": "host", "hvf": "host", "tcg": "neoverse-n1"},
    # A kernel at a random address relocates itself, and has two sets of page tables (KPTI).
    (*kernel_arguments.COMMON, "console=ttyAMA0", "nokaslr"),
    has_page_size=True,
)
TARGETS = {target.architecture: target for target in (X86_64, AARCH64)}
