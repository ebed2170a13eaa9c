"""Whether VirtualBox works on this host."""

import asyncio
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
from boincvm.hypervisor.virtualbox.nvme import check_nvme
from boincvm.hypervisor.virtualbox.vboxmanage import parse_version

ABILITIES = Abilities(
    frozenset(
        {
            Ability.CHECKPOINT,
            Ability.GOLDEN,
            Ability.NETWORK,
            Ability.PORT_FORWARDING,
            Ability.SCREENSHOT,
            Ability.REMOTE_DESKTOP,
            Ability.TRANSFER_DISK,
            Ability.FIRMWARE,
        }
    ),
    MOST_CPUS,
)


PROVED_SINCE = (7, 0)
"""Of an older one nobody has seen a machine run."""


def assess(_: FindKernel) -> Verdict:
    """Look at its version, its NVMe controller and its kernel module.

    Raises HypervisorMissingError, HypervisorError.
    """
    path = program(MANAGE)
    status, text = output_of(path, "--version")
    try:
        version = parse_version(text)
    except HypervisorError:
        raise HypervisorMissingError(
            f"{path} does not report its version (status {status}): {last_line(text)}",
            hint=INSTALL_HINT,
        ) from None
    if version < OLDEST:
        return unusable(f"VirtualBox {version} is too old", INSTALL_HINT, str(version))
    try:
        asyncio.run(check_nvme(version))
    except HypervisorMissingError as error:
        return unusable(error.message, error.hint, str(version))
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
        is_proved=version >= PROVED_SINCE,
    )
