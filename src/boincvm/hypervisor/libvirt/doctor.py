"""Checks of `boincvm doctor` for libvirt; none if its binding is not installed."""

from importlib.util import find_spec

from boincvm.hypervisor.doctor import Check, CheckFunction, FindKernel, check_verdict
from boincvm.hypervisor.libvirt.assess import assess
from boincvm.hypervisor.libvirt.uri import chosen_uri

_NAME = "libvirt"


def installation(find_kernel: FindKernel) -> list[Check]:
    """Check that a daemon answers, and with which version."""
    if find_spec(_NAME) is None:
        return []
    return check_verdict(
        _NAME,
        lambda: assess(find_kernel),
        lambda verdict: f"{chosen_uri().text}, version {verdict.version}; for --driver libvirt",
    )


CHECKS: tuple[tuple[str, CheckFunction], ...] = ((_NAME, installation),)
