"""Checks of `boincvm doctor` for libvirt; none if its binding is not installed."""

from importlib.util import find_spec

from boincvm.hypervisor.doctor import Check, CheckFunction, FindKernel, check_verdict
from boincvm.hypervisor.libvirt.assess import assess
from boincvm.hypervisor.libvirt.uri import choose_uri
from boincvm.hypervisor.verdict import Verdict

_NAME = "libvirt"


def installation(find_kernel: FindKernel) -> list[Check]:
    """Check that a daemon answers, and with which version."""
    if find_spec(_NAME) is None:
        return []
    return check_verdict(
        _NAME,
        lambda: assess(find_kernel),
        _describe,
    )


def _describe(verdict: Verdict) -> str:
    uri, chosen_by = choose_uri()
    source = f" ({chosen_by})" if chosen_by else ""
    return f"{uri.text}{source}, version {verdict.version}; for --driver libvirt"


CHECKS: tuple[tuple[str, CheckFunction], ...] = ((_NAME, installation),)
