"""Checks of `boincvm doctor` for User-mode Linux.

There are none if it is not installed, as it is not the default driver.
"""

from boincvm.errors import HypervisorMissingError
from boincvm.host.programs import find_program
from boincvm.hypervisor.doctor import Check, FindKernel, LookUp, Status
from boincvm.hypervisor.uml.assess import assess
from boincvm.hypervisor.uml.command import PROGRAM

_NAME = "user-mode linux"


def program(find_kernel: FindKernel) -> list[Check]:
    """Check for the kernel, and that a machine can have its own namespaces."""
    path = find_program(PROGRAM)
    if path is None:
        return []
    try:
        verdict = assess(find_kernel)
    except HypervisorMissingError as error:
        detail = f"{error.message}; --driver uml needs it"
        return [Check(_NAME, Status.WARNING, detail, error.hint)]
    if verdict.trouble:
        return [Check(_NAME, Status.WARNING, verdict.trouble, verdict.remedy)]
    return [Check(_NAME, Status.OK, f"{path}, version {verdict.version}; for --driver uml")]


LOOK_UPS: tuple[tuple[str, LookUp], ...] = ((_NAME, program),)
