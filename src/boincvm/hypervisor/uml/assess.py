"""The advisor's verdict on User-mode Linux: which version, and what keeps a guest in."""

from boincvm.host.programs import find_program
from boincvm.host.virtualization import namespaces_remedy
from boincvm.hypervisor.doctor import FindKernel, last_line, output_of
from boincvm.hypervisor.uml.command import INSTALL_HINT, PROGRAM, namespace_command
from boincvm.hypervisor.verdict import Abilities, Ability, Isolation, Speed, Verdict, unusable

ABILITIES = Abilities(frozenset((Ability.TRANSFER_DISK,)), most_cpus=1)
NO_NAMESPACES_REMEDY = (
    "allow users to create user namespaces: see user_namespaces(7), or ask this"
    " host's administrator"
)


def assess(_: FindKernel) -> Verdict:
    """Return the verdict. Raises HypervisorMissingError if `unshare` is not installed."""
    path = find_program(PROGRAM)
    if path is None:
        return unusable(f"no {PROGRAM}", INSTALL_HINT)
    status, text = output_of(*namespace_command(), path, "--version")
    if status != 0:
        remedy = namespaces_remedy() or NO_NAMESPACES_REMEDY
        return unusable(f"no machine can be started: {last_line(text)}", remedy)
    return Verdict(
        version=last_line(text),
        acceleration="none is needed: the kernel and the guest's programs are the host's programs",
        speed=Speed.NATIVE,
        isolation=Isolation.NONE,
        isolated_by="a PID namespace, which does not stop a hostile program",
        abilities=ABILITIES,
    )
