"""The advisor's verdict on QEMU: which version, which acceleration, what keeps a guest in."""

import asyncio
import re

from boincvm.host.programs import find_program
from boincvm.hypervisor.doctor import FindKernel, last_line, output_of
from boincvm.hypervisor.qemu.acceleration import KVM, acceleration_remedy, probe
from boincvm.hypervisor.qemu.command import INSTALL_HINT, PROGRAM
from boincvm.hypervisor.qemu.target import TARGETS
from boincvm.hypervisor.verdict import Abilities, Ability, Isolation, Speed, Verdict, unusable

OLDEST = (7, 2)
ABILITIES = Abilities(frozenset(Ability), architectures=frozenset(TARGETS))
"""Those of machines for x86-64; one for AArch64 has no screen, and boots no disk of its own."""
DEPENDS_ON = (PROGRAM, "qemu-img", str(KVM))


def assess(find_kernel: FindKernel) -> Verdict:
    """Return the verdict. Raises HypervisorMissingError, OSError."""
    path = find_program(PROGRAM)
    if path is None:
        return unusable(f"no {PROGRAM}", INSTALL_HINT)
    version, trouble, remedy = read_version(path)
    if trouble:
        return unusable(trouble, remedy, version)
    kernel = find_kernel()
    found = asyncio.run(probe(kernel))
    verdict = Verdict(
        version=version,
        acceleration=f"{found.accelerator}: {found.reason}",
        abilities=ABILITIES,
        is_final=kernel is not None,
    )
    if found.accelerator != "tcg":
        return verdict._replace(
            isolation=Isolation.HARDWARE,
            isolated_by=f"the processor ({found.accelerator}), and QEMU's seccomp filter",
        )
    return verdict._replace(
        remedy=acceleration_remedy(kernel),
        speed=Speed.EMULATED,
        isolation=Isolation.SANDBOX,
        isolated_by="QEMU's seccomp filter; emulation itself is no security boundary",
    )


def read_version(path: str) -> tuple[str, str, str]:
    """Return QEMU's version, and if that cannot be used: why, and what to do."""
    status, text = output_of(path, "--version")
    found = re.search(r"version (\d+)\.(\d+)(?:\.\d+)*", text)
    if status != 0 or found is None:
        return "", f"{path} does not report its version: {last_line(text)}", INSTALL_HINT
    version = found[0].removeprefix("version ")
    if (int(found[1]), int(found[2])) < OLDEST:
        remedy = f"install QEMU {'.'.join(map(str, OLDEST))} or newer"
        return version, f"{path}, version {version}, is too old", remedy
    return version, "", ""
