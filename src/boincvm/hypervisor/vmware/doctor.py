"""Checks of `boincvm doctor` for VMware; none if it is not installed."""

from boincvm.errors import HypervisorMissingError
from boincvm.hypervisor.doctor import Check, CheckFunction, FindKernel, Status
from boincvm.hypervisor.vmware.assess import assess
from boincvm.hypervisor.vmware.installation import UNPROVED, find_vmrun

_NAME = "vmware"


def installation(find_kernel: FindKernel) -> list[Check]:
    """Check the version, and that the kernel module is loaded."""
    path = find_vmrun()
    if path is None:
        return []
    try:
        verdict = assess(find_kernel)
    except HypervisorMissingError as error:
        return [Check(_NAME, Status.WARNING, error.message, error.hint)]
    if verdict.trouble:
        return [Check(_NAME, Status.WARNING, verdict.trouble, verdict.remedy)]
    detail = f"{path}, version {verdict.version}; for --driver vmware, which is {UNPROVED}"
    return [Check(_NAME, Status.OK, detail)]


CHECKS: tuple[tuple[str, CheckFunction], ...] = ((_NAME, installation),)
