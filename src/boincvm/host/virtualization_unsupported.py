"""Virtualization where boincvm runs no machines yet; import it through `virtualization`."""

import sys

ACCELERATOR = {"darwin": "hvf", "win32": "whpx"}.get(sys.platform, "")
"""The system's own interface to hardware virtualization, by the name that QEMU gives it."""
HAS_SECCOMP = False
"""Whether a process can give up system calls for good."""
HAS_MEMORY_FILES = sys.platform != "win32"
"""Whether QEMU can map a guest's memory from a file."""
_NO_WHPX = (
    "turn on the Windows feature, as administrator: "
    "DISM /online /Enable-Feature /FeatureName:HypervisorPlatform /All"
)


def accelerator_obstacle() -> str:
    """Return why nothing can be tried, or ""; whether it works, only a trial tells."""
    return "" if ACCELERATOR else "QEMU has no accelerator for this operating system"


def accelerator_remedy() -> str:
    """Return what turns the accelerator on, or "" if nothing does."""
    return _NO_WHPX if sys.platform == "win32" else ""


def describe_nesting() -> str:
    """Return "": nothing is known."""
    return ""


def loaded_modules() -> frozenset[str]:
    """Return no module's name: they are not known."""
    return frozenset()


def namespaces_remedy() -> str:
    """Return "": only Linux has user namespaces."""
    return ""
