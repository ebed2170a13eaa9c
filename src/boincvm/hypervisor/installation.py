"""The command that installs the best hypervisor on this system.

That is QEMU everywhere: with hardware virtualization it is as fast as any and isolates best,
without it checkpoints still work. Where /dev/kvm cannot be used, and the system has User-mode
Linux, that is installed too: it runs jobs that want no checkpoints at the host's own speed.
"""

from collections.abc import Sequence
from typing import NamedTuple

from boincvm.errors import UnsupportedHostError


class PackageManager(NamedTuple):
    """How a system installs packages."""

    command: tuple[str, ...]
    assume_yes: tuple[str, ...]
    """The options with which it asks nothing."""
    packages: tuple[str, ...]
    """QEMU, and what runs with it."""
    without_kvm: tuple[str, ...] = ()
    """What is of use where KVM is not."""
    needs_root: bool = True
    libvirt: tuple[str, ...] = ()
    """libvirt's daemon with its QEMU driver, and what its Python binding is compiled with."""


_DEBIAN = PackageManager(
    ("apt-get", "install", "--no-install-recommends"),
    ("-y",),
    ("qemu-system-x86", "qemu-utils", "util-linux"),
    ("user-mode-linux", "bubblewrap"),  # which runs only in a sandbox
    libvirt=(
        *("libvirt-daemon", "libvirt-daemon-driver-qemu"),
        *("libvirt-dev", "pkg-config", "gcc", "libc6-dev"),
    ),
)
MANAGERS = {
    "debian": _DEBIAN,
    "ubuntu": _DEBIAN,
    "fedora": PackageManager(
        ("dnf", "install"), ("-y",), ("qemu-system-x86-core", "qemu-img", "util-linux")
    ),
    "arch": PackageManager(
        ("pacman", "-S", "--needed"),
        ("--noconfirm",),
        ("qemu-system-x86", "qemu-img", "util-linux"),
    ),
    "suse": PackageManager(
        ("zypper", "install", "--no-recommends"),
        ("-y",),
        ("qemu-x86", "qemu-tools", "util-linux"),
    ),
    "macos": PackageManager(("brew", "install"), (), ("qemu",), needs_root=False),
    "windows": PackageManager(
        ("winget", "install"),
        ("--accept-package-agreements", "--accept-source-agreements"),
        ("--exact", "--id", "SoftwareFreedomConservancy.QEMU"),
        needs_root=False,
    ),
}
"""By a name of the system (host/distribution.py). On Debian the command is tested for real."""
_ALIASES = {"opensuse": "suse", "opensuse-leap": "suse", "opensuse-tumbleweed": "suse"}


def package_manager(names: Sequence[str]) -> PackageManager:
    """Return how a system with one of these names installs. Raises UnsupportedHostError."""
    for name in names:
        manager = MANAGERS.get(_ALIASES.get(name, name))
        if manager is not None:
            return manager
    known = ", ".join(MANAGERS)
    raise UnsupportedHostError(
        f"boincvm does not know how {' or '.join(names) or 'this system'} installs packages",
        hint=f"install QEMU by hand; known are {known}",
    )


def install_command(
    manager: PackageManager, *, has_kvm: bool, as_root: str | None, with_libvirt: bool = False
) -> list[str]:
    """Return the command, which asks nothing, because its caller has asked already.

    `as_root`: the program that makes this user root for one command, None if none is needed. Raises
    UnsupportedHostError if the packages of libvirt are wanted and not known.
    """
    packages = manager.packages if has_kvm else (*manager.packages, *manager.without_kvm)
    if with_libvirt:
        if not manager.libvirt:
            raise UnsupportedHostError(
                "boincvm does not know this system's packages of libvirt",
                hint="install libvirt's daemon with its QEMU driver by hand",
            )
        packages = (*manager.packages, *manager.libvirt)
    prefix = [as_root] if as_root and manager.needs_root else []
    return [*prefix, *manager.command, *manager.assume_yes, *packages]
