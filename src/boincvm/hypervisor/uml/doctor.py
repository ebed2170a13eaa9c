"""Checks of `boincvm doctor` for User-mode Linux.

There are none if it is not installed, as it is not the default driver.
"""

from boincvm.errors import HypervisorMissingError
from boincvm.host.programs import find_program
from boincvm.hypervisor.doctor import Check, FindKernel, LookUp, Status, last_line, output_of
from boincvm.hypervisor.uml.command import PROGRAM, namespace_command

_NAME = "user-mode linux"
_SPACES_REMEDY = "let users make user namespaces: see user_namespaces(7), or ask who runs this host"


def program(_: FindKernel) -> list[Check]:
    """Check for the kernel, and that a machine can have its own namespaces."""
    path = find_program(PROGRAM)
    if path is None:
        return []
    try:
        status, text = output_of(*namespace_command(), path, "--version")
    except HypervisorMissingError as error:
        detail = f"{error.message}; --driver uml needs it"
        return [Check(_NAME, Status.WARNING, detail, error.hint)]
    if status != 0:
        detail = f"no machine can be started: {last_line(text)}"
        return [Check(_NAME, Status.WARNING, detail, _SPACES_REMEDY)]
    return [Check(_NAME, Status.OK, f"{path}, version {last_line(text)}; for --driver uml")]


LOOK_UPS: tuple[tuple[str, LookUp], ...] = ((_NAME, program),)
