"""Packages that need kernel modules, of which our own kernels have none."""

import re
from collections.abc import Iterable

from boincvm.errors import ImageBuildError
from boincvm.image.exclude import is_for_kernel
from boincvm.image.unpack import Control

_FILES = re.compile(
    rb"^[0-9a-f]{32}  (?:usr/lib/|lib/|etc/)(?:modules/|modules-load\.d/)", re.MULTILINE
)
"""Matches packages' lists of files (dh_md5sums) with modules, or with orders to load some."""
_DEPENDS = re.compile(r"^(?:Pre-)?Depends:.*(?<![a-z0-9.+-])dkms(?![a-z0-9.+-])", re.MULTILINE)


def needs_modules(control: Control) -> bool:
    """Tell whether a package brings kernel modules, has some loaded, or compiles some."""
    return (
        _FILES.search(control.files.get("md5sums", b"")) is not None
        or _DEPENDS.search(control.text) is not None
    )


def check_modules(controls: Iterable[Control], kernel: str) -> None:
    """Check that no package needs modules, which the kernel named `kernel` has not.

    Raises ImageBuildError, which names all that do.
    """
    found = [
        control.package.name
        for control in controls
        if not is_for_kernel(control.package.name) and needs_modules(control)
    ]
    if found:
        raise ImageBuildError(
            f"the kernel {kernel} has no modules, and these packages need some: {', '.join(found)}",
            hint="leave them out; with Debian's kernel the image is built, but has only modules"
            " for a machine's devices",
        )
