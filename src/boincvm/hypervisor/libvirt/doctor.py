"""Checks of `boincvm doctor` for libvirt; none if its binding is not installed."""

from importlib.util import find_spec

from boincvm.errors import BoincvmError
from boincvm.hypervisor.doctor import Check, CheckFunction, FindKernel, Status
from boincvm.hypervisor.libvirt.assess import assess
from boincvm.hypervisor.libvirt.uri import chosen_uri

_NAME = "libvirt"


def installation(find_kernel: FindKernel) -> list[Check]:
    """Check that a daemon answers, and with which version."""
    if find_spec(_NAME) is None:
        return []
    try:
        verdict = assess(find_kernel)
    except BoincvmError as error:
        return [Check(_NAME, Status.WARNING, error.message, error.hint)]
    if verdict.trouble:
        return [Check(_NAME, Status.WARNING, verdict.trouble, verdict.remedy)]
    detail = f"{chosen_uri().text}, version {verdict.version}; for --driver libvirt"
    return [Check(_NAME, Status.OK, detail)]


CHECKS: tuple[tuple[str, CheckFunction], ...] = ((_NAME, installation),)
