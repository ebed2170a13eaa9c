"""VMware's programs on this host, and which of its products they belong to."""

import os
import sys
from enum import StrEnum
from pathlib import Path

from boincvm.errors import HypervisorMissingError
from boincvm.host.programs import find_program

VMRUN = "vmrun"
_WORKSTATION = "vmware"
DEVICE = Path("/dev/vmmon")
"""On Linux it is there while VMware's kernel module is loaded."""
OLDEST = (1, 17)
"""Version of `vmrun` with Workstation 15 and Fusion 11; older ones were never looked at."""
INSTALL_HINT = "install VMware Workstation (on macOS: Fusion), which brings vmrun"
MODULE_HINT = "build and load its kernel modules: as root, vmware-modconfig --console --install-all"
UNPROVED = "unproved: nobody has run boincvm with a real VMware"
_FUSION = Path("/Applications/VMware Fusion.app/Contents")
_FUSION_PLACES = (_FUSION / "Public" / VMRUN, _FUSION / "Library" / VMRUN)
_WINDOWS_FOLDERS = ("ProgramFiles", "ProgramFiles(x86)")


class Product(StrEnum):
    """A product of VMware's, as `vmrun -T` names it."""

    WORKSTATION = "ws"
    PLAYER = "player"
    """It takes no snapshots."""
    FUSION = "fusion"


def find_vmrun() -> str | None:
    """Return the path of `vmrun`, or None."""
    found = find_program(VMRUN)
    if found is not None:
        return found
    return next((str(path) for path in _usual_places() if path.is_file()), None)


def _usual_places() -> list[Path]:
    """Return where VMware's installers put `vmrun` without adding it to PATH."""
    folders = [os.environ[name] for name in _WINDOWS_FOLDERS if name in os.environ]
    windows = [Path(folder, "VMware", "VMware Workstation", "vmrun.exe") for folder in folders]
    return {"darwin": list(_FUSION_PLACES), "win32": windows}.get(sys.platform, [])


def vmrun() -> str:
    """Return the path of `vmrun`. Raises HypervisorMissingError."""
    path = find_vmrun()
    if path is None:
        raise HypervisorMissingError(
            f"VMware is not installed: there is no {VMRUN}", hint=INSTALL_HINT
        )
    return path


def product_of(path: str) -> Product:
    """Return the product that the `vmrun` at `path` belongs to."""
    # Workstation brings Player's program too.
    beside = Path(path).with_name(f"{_WORKSTATION}{Path(path).suffix}")
    has_workstation = beside.is_file() or find_program(_WORKSTATION) is not None
    others = Product.WORKSTATION if has_workstation else Product.PLAYER
    return {"darwin": Product.FUSION}.get(sys.platform, others)
