"""VirtualBox's programs and its kernel module on this host."""

from boincvm.errors import HypervisorMissingError
from boincvm.host.programs import find_program

MANAGE, HEADLESS = "VBoxManage", "VBoxHeadless"
DEVICE = "/dev/vboxdrv"
"""There while VirtualBox's kernel module is loaded."""
OLDEST = (6, 1)
INSTALL_HINT = "install VirtualBox 7.0 or newer: https://www.virtualbox.org/wiki/Downloads"
MODULE_HINT = (
    "load its kernel module: as root, /sbin/vboxconfig (Debian's packages: apt-get install"
    " virtualbox-dkms linux-headers-amd64, then modprobe vboxdrv)"
)


def program(name: str) -> str:
    """Return the path of VirtualBox's program `name`. Raises HypervisorMissingError."""
    path = find_program(name)
    if path is None:
        raise HypervisorMissingError(
            f"VirtualBox is not installed: there is no {name}", hint=INSTALL_HINT
        )
    return path
