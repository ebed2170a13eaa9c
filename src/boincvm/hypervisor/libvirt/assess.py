"""Whether libvirt works on this host, and what runs its machines' code."""

from pathlib import Path

from boincvm.errors import HypervisorMissingError
from boincvm.hypervisor.doctor import FindKernel
from boincvm.hypervisor.libvirt.connection import LibvirtError, connect, translate
from boincvm.hypervisor.libvirt.library import INSTALL_HINT
from boincvm.hypervisor.libvirt.saved import version_text
from boincvm.hypervisor.libvirt.uri import VARIABLES, Uri, chosen_uri
from boincvm.hypervisor.registry import find_driver
from boincvm.hypervisor.verdict import Abilities, Ability, Speed, Verdict, unusable

ABILITIES = Abilities(
    frozenset(
        {
            Ability.CHECKPOINT,
            Ability.GOLDEN,
            Ability.NETWORK,
            Ability.PORT_FORWARDING,
            Ability.BALLOON,
            Ability.TRANSFER_DISK,
            Ability.FIRMWARE,
        }
    )
)
_OF_QEMU = {Ability.CHECKPOINT, Ability.GOLDEN, Ability.PORT_FORWARDING}
"""What no other hypervisor's machines can do by libvirt."""
_PLAIN_QEMU = "qemu"
DAEMON_HINT = (
    f"start its daemon (libvirtd or virtqemud), or set {VARIABLES[0]} or `libvirt` of your"
    " preferences to the URI of one;"
    " Debian's packages: libvirt-daemon, libvirt-daemon-driver-qemu; for qemu:///system"
    " libvirt-daemon-system"
)


def assess(find_kernel: FindKernel) -> Verdict:
    """Return the verdict. Raises HypervisorMissingError, UsageError, HostError, OSError."""
    uri = chosen_uri()
    try:
        connection = connect(uri)
    except LibvirtError as error:
        return unusable(f"{uri.text} cannot be opened: {error.message}", DAEMON_HINT)
    try:
        number = translate(connection.getLibVersion)
    finally:
        connection.close()
    version, abilities = version_text(number), ABILITIES
    if uri.hypervisor != "qemu":
        verdict = Verdict(acceleration=f"{uri.hypervisor}, unproved")
        abilities = Abilities(ABILITIES.of_machines - _OF_QEMU)
    else:
        verdict = _of_qemu(find_kernel)
        if verdict.trouble:
            return verdict
    return verdict._replace(version=version, abilities=abilities)


def _of_qemu(find_kernel: FindKernel) -> Verdict:
    """Return the verdict on the QEMU that libvirt runs.

    libvirt tells only that /dev/kvm opens; that driver boots a kernel with it.
    """
    return find_driver(_PLAIN_QEMU).assess(find_kernel)


def is_accelerated(uri: Uri, kernel: Path | None) -> bool:
    """Tell whether the processor runs the guest's code. Raises HypervisorMissingError, OSError."""
    if uri.hypervisor != "qemu":
        return True
    verdict = _of_qemu(lambda: kernel)
    if verdict.trouble:
        raise HypervisorMissingError(verdict.trouble, hint=verdict.remedy or INSTALL_HINT)
    return verdict.speed is Speed.NATIVE
