"""Checks of `boincvm doctor` for VirtualBox; none if it is not installed."""

from boincvm.host.programs import find_program
from boincvm.hypervisor.doctor import Check, CheckFunction, FindKernel, check_verdict
from boincvm.hypervisor.virtualbox.assess import assess
from boincvm.hypervisor.virtualbox.installation import MANAGE

_NAME = "virtualbox"


def installation(find_kernel: FindKernel) -> list[Check]:
    """Check the version, and that the kernel module is loaded."""
    path = find_program(MANAGE)
    if path is None:
        return []
    return check_verdict(
        _NAME,
        lambda: assess(find_kernel),
        lambda verdict: f"{path}, version {verdict.version}; for --driver virtualbox",
    )


CHECKS: tuple[tuple[str, CheckFunction], ...] = ((_NAME, installation),)
