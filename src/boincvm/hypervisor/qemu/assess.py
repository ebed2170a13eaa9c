"""The advisor's verdict on QEMU: which version, which acceleration, what keeps a guest in."""

import asyncio

from boincvm.host.child_sockets import HAS_INHERITED_SOCKETS
from boincvm.host.passthrough import HAS_PASSTHROUGH
from boincvm.host.programs import find_program
from boincvm.host.virtualization import HAS_SECCOMP
from boincvm.hypervisor.doctor import FindKernel
from boincvm.hypervisor.qemu.acceleration import acceleration_remedy, probe
from boincvm.hypervisor.qemu.command import INSTALL_HINT, PROGRAM
from boincvm.hypervisor.qemu.target import TARGETS
from boincvm.hypervisor.qemu_version import read_version
from boincvm.hypervisor.verdict import Abilities, Ability, Isolation, Speed, Verdict, unusable

ABILITIES = Abilities(
    frozenset(
        {
            Ability.CHECKPOINT,
            Ability.GOLDEN,
            Ability.NETWORK,
            Ability.PORT_FORWARDING,
            Ability.DISPLAY,
            Ability.SCREENSHOT,
            Ability.BALLOON,
            Ability.TRANSFER_DISK,
            Ability.FIRMWARE,
            *([Ability.ON_DEMAND] if HAS_INHERITED_SOCKETS else []),
            *([Ability.GPU] if HAS_PASSTHROUGH else []),
        }
    ),
    architectures=frozenset(TARGETS),
)
"""Those of machines for x86-64; one for AArch64 has no screen, and boots no disk of its own."""
_FILTER = "QEMU's seccomp filter" if HAS_SECCOMP else "no sandbox, which QEMU has only on Linux"
DEPENDS_ON = (PROGRAM, "qemu-img", "/dev/kvm")


def assess(find_kernel: FindKernel) -> Verdict:
    """Return the verdict. Raises HypervisorMissingError, OSError."""
    path = find_program(PROGRAM)
    if path is None:
        return unusable(f"no {PROGRAM}", INSTALL_HINT)
    version, trouble, remedy = read_version(path, INSTALL_HINT)
    if trouble:
        return unusable(trouble, remedy, version)
    kernel = find_kernel()
    found = asyncio.run(probe(kernel))
    verdict = Verdict(
        version=version,
        acceleration=f"{found.accelerator}: {found.reason}",
        abilities=ABILITIES,
        is_final=kernel is not None,
        valid_until=found.valid_until,
    )
    if found.accelerator != "tcg":
        return verdict._replace(
            isolation=Isolation.HARDWARE,
            isolated_by=f"the processor ({found.accelerator}), and {_FILTER}",
        )
    return verdict._replace(
        remedy=acceleration_remedy(kernel),
        speed=Speed.EMULATED,
        isolation=Isolation.SANDBOX if HAS_SECCOMP else Isolation.NONE,
        isolated_by=f"{_FILTER}; emulation itself is not a security boundary",
    )
