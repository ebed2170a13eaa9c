"""The programs and libraries of this computer that compile a kernel."""

import platform
import shutil
import subprocess

from boincvm.errors import ImageBuildError
from boincvm.image.tools import run_tool, search_path

_PACKAGE_OF = {
    "apt-get": "apt",
    "bc": "bc",
    "bison": "bison",
    "dpkg-deb": "dpkg",
    "flex": "flex",
    "gcc": "gcc",
    "ld": "binutils",
    "make": "make",
    "strip": "binutils",
    "tar": "tar",
    "xz": "xz-utils",
}
_HEADERS = {"stdio.h": "libc6-dev", "libelf.h": "libelf-dev"}
"""Header files, by which a development package is recognized."""


def check_toolchain() -> None:
    """Check that kernels can be compiled here; report all that is missing in one error.

    Raises ImageBuildError.
    """
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise ImageBuildError(
            f"kernels are built on Linux on x86_64, not on {platform.system()} "
            f"on {platform.machine()}",
            hint="build an image with the kernel on such a computer and copy it:"
            " boincvm help images",
        )
    path = search_path()
    missing = {tool: package for tool, package in _PACKAGE_OF.items() if not _find(tool, path)}
    if "gcc" not in missing:
        missing |= {name: package for name, package in _HEADERS.items() if not _has_header(name)}
    if missing:
        packages = sorted(set(missing.values()))
        raise ImageBuildError(
            f"what compiling a kernel needs is not installed: {', '.join(missing)}",
            hint=f"apt-get install --no-install-recommends {' '.join(packages)}",
        )


def compiler_version() -> str:
    """Return what compiler and linker say they are. Raises ImageBuildError."""
    return "; ".join(
        run_tool([tool, "--version"]).decode("utf-8", "replace").partition("\n")[0]
        for tool in ("gcc", "ld")
    )


def _find(tool: str, path: str) -> bool:
    return shutil.which(tool, path=path) is not None


def _has_header(name: str) -> bool:
    done = subprocess.run(
        ["gcc", "-E", "-x", "c", "-"],
        input=f"#include <{name}>\n".encode(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode == 0
