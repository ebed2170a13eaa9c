"""Whether VirtualBox works on this host."""

from pathlib import Path

from boincvm.errors import HypervisorError, HypervisorMissingError
from boincvm.hypervisor.doctor import FindKernel, last_line, output_of
from boincvm.hypervisor.verdict import (
    Abilities,
    Ability,
    Isolation,
    Speed,
    Verdict,
    unusable,
)
from boincvm.hypervisor.virtualbox.command import MOST_CPUS
from boincvm.hypervisor.virtualbox.installation import (
    DEVICE,
    INSTALL_HINT,
    MANAGE,
    MODULE_HINT,
    OLDEST,
    program,
)
from boincvm.hypervisor.virtualbox.vboxmanage import parse_version

ABILITIES = Abilities(
    frozenset(
        {
            Ability.CHECKPOINT,
            Ability.GOLDEN,
            Ability.NETWORK,
            Ability.TRANSFER_DISK,
            Ability.FIRMWARE,
        }
    ),
    MOST_CPUS,
)


def assess(_: FindKernel) -> Verdict:
    """Look at its version and its kernel module. Raises HypervisorMissingError."""
    path = program(MANAGE)
    status, text = output_of(path, "--version")
    try:
        version = parse_version(text)
    except HypervisorError:
        raise HypervisorMissingError(
            f"{path} does not tell its version (status {status}): {last_line(text)}",
            hint=INSTALL_HINT,
        ) from None
    if version < OLDEST:
        return unusable(f"VirtualBox {version} is too old", INSTALL_HINT, str(version))
    if not Path(DEVICE).exists():
        trouble = f"VirtualBox {version} is here, but {DEVICE} is not, so no machine can start"
        return unusable(trouble, MODULE_HINT, str(version))
    return Verdict(
        version=str(version),
        acceleration=f"VirtualBox's kernel module ({DEVICE})",
        speed=Speed.NATIVE,
        isolation=Isolation.HARDWARE,
        isolated_by="the processor, and VirtualBox's own devices",
        abilities=ABILITIES,
    )
