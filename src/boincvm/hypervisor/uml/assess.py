"""The advisor's verdict on User-mode Linux: which version, and what keeps a guest in."""

import os

from boincvm.errors import HypervisorMissingError
from boincvm.host.programs import find_program
from boincvm.host.virtualization import namespaces_remedy
from boincvm.hypervisor.doctor import FindKernel, last_line, output_of
from boincvm.hypervisor.qemu_version import read_version
from boincvm.hypervisor.uml.kernel import UmlKernel, find_kernel
from boincvm.hypervisor.uml.network import INSTALL_HINT, PROGRAM, has_card
from boincvm.hypervisor.uml.sandbox import make_sandbox
from boincvm.hypervisor.verdict import Abilities, Ability, Isolation, Speed, Verdict, unusable

_NETWORK = frozenset((Ability.NETWORK, Ability.PORT_FORWARDING))
ABILITIES = Abilities(_NETWORK | {Ability.TRANSFER_DISK}, most_cpus=1)
NO_NAMESPACES_REMEDY = (
    "allow users to create user namespaces: see user_namespaces(7), or ask this"
    " host's administrator"
)
SLOW_REMEDY = "build ours, which starts five times as fast: boincvm image kernel build --uml"
NO_CARD_REMEDY = "for machines with a network, build it again: boincvm image kernel build --uml"
_MEMORY = 64 << 20
"""Bytes; the kernel that is asked for its version has no guest."""


def assess(_: FindKernel) -> Verdict:
    """Return the verdict. Raises HypervisorMissingError if a program of the sandbox is missing."""
    try:
        kernel = find_kernel()
    except HypervisorMissingError as error:
        return unusable(error.message, error.hint)
    status, text = _version(kernel)
    if status != 0:
        remedy = namespaces_remedy() or NO_NAMESPACES_REMEDY
        return unusable(f"no machine can be started: {last_line(text)}", remedy)
    no_network = _network_remedy(kernel)
    return Verdict(
        version=last_line(text),
        remedy=no_network if kernel.is_own else SLOW_REMEDY,
        acceleration="none is needed: the kernel and the guest's programs are the host's programs",
        speed=Speed.NATIVE,
        isolation=Isolation.SANDBOX,
        isolated_by="a sandbox with no file, network or process of this host in it, and few system"
        " calls; the host's kernel is the boundary",
        abilities=ABILITIES._replace(of_machines=ABILITIES.of_machines - _NETWORK)
        if no_network
        else ABILITIES,
    )


def _network_remedy(kernel: UmlKernel) -> str:
    """Return what lets machines have a network, or "" if they can. Raises OSError."""
    if not has_card(kernel):
        return NO_CARD_REMEDY
    path = find_program(PROGRAM)
    remedy = read_version(path, INSTALL_HINT)[2] if path is not None else INSTALL_HINT
    return f"for machines with a network, {remedy}" if remedy else ""


def _version(kernel: UmlKernel) -> tuple[int, str]:
    program = kernel.open()
    try:
        sandbox = make_sandbox(program, None, _MEMORY, None)
    finally:
        os.close(program)
    try:
        return output_of(*sandbox.command, "--version", descriptors=sandbox.descriptors)
    finally:
        sandbox.close()
