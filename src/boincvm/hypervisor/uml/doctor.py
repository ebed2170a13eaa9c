"""Checks of `boincvm doctor` for User-mode Linux.

There are none if no kernel is here, as it is not the default driver.
"""

from boincvm.errors import HypervisorMissingError
from boincvm.hypervisor.doctor import Check, CheckFunction, FindKernel, Status
from boincvm.hypervisor.uml.assess import assess
from boincvm.hypervisor.uml.kernel import find_kernel as find_uml_kernel

_NAME = "user-mode linux"


def program(find_kernel: FindKernel) -> list[Check]:
    """Check for the kernel, and that it runs in its sandbox."""
    try:
        kernel = find_uml_kernel()
    except HypervisorMissingError:
        return []
    try:
        verdict = assess(find_kernel)
    except HypervisorMissingError as error:
        detail = f"{error.message}; --driver uml needs it"
        return [Check(_NAME, Status.WARNING, detail, error.hint)]
    if verdict.trouble:
        return [Check(_NAME, Status.WARNING, verdict.trouble, verdict.remedy)]
    detail = f"{kernel.path}, version {verdict.version}; for --driver uml: {verdict.isolated_by}"
    return [Check(_NAME, Status.OK, detail, verdict.remedy)]


CHECKS: tuple[tuple[str, CheckFunction], ...] = ((_NAME, program),)
