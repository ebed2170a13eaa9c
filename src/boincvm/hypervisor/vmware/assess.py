"""Whether VMware works on this host, as far as anybody can tell without having tried it."""

import sys

from boincvm.errors import HypervisorMissingError
from boincvm.hypervisor.doctor import FindKernel, last_line, output_of
from boincvm.hypervisor.verdict import Abilities, Ability, Isolation, Speed, Verdict, unusable
from boincvm.hypervisor.vmware import installation
from boincvm.hypervisor.vmware.definition import MOST_CPUS
from boincvm.hypervisor.vmware.installation import (
    INSTALL_HINT,
    MODULE_HINT,
    OLDEST,
    UNPROVED,
    Product,
    product_of,
    vmrun,
)
from boincvm.hypervisor.vmware.vmrun import Version, parse_version

ABILITIES = Abilities(frozenset({Ability.CHECKPOINT}), MOST_CPUS)
_OF_PLAYER = Abilities(frozenset(), MOST_CPUS)


def version_of(path: str) -> Version:
    """Return the version that the `vmrun` at `path` tells. Raises HypervisorMissingError."""
    status, text = output_of(path)  # it prints its usage, and calls that an error
    version = parse_version(text)
    if version is None:
        raise HypervisorMissingError(
            f"{path} does not report its version (status {status}): {last_line(text)}",
            hint=INSTALL_HINT,
        )
    return version


def assess(_: FindKernel) -> Verdict:
    """Look at its version and its kernel module. Raises HypervisorMissingError."""
    path = vmrun()
    version = version_of(path)
    if version < OLDEST:
        return unusable(f"vmrun {version} is too old", INSTALL_HINT, str(version))
    if sys.platform == "linux" and not installation.DEVICE.exists():
        trouble = (
            f"vmrun {version} is here, but {installation.DEVICE} is not, so no machine can start"
        )
        return unusable(trouble, MODULE_HINT, str(version))
    product = product_of(path)
    return Verdict(
        version=str(version),
        acceleration=f"VMware ({product}), {UNPROVED}",
        speed=Speed.NATIVE,
        isolation=Isolation.HARDWARE,
        isolated_by=f"the processor, and VMware's own devices; {UNPROVED}",
        abilities=_OF_PLAYER if product is Product.PLAYER else ABILITIES,
        is_proved=False,
    )
