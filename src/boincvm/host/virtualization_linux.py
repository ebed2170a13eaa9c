"""Virtualization on Linux; import it through `virtualization`."""

import os
import stat
import sys
from pathlib import Path

assert sys.platform != "win32"

ACCELERATOR = "kvm"
"""The system's own interface to hardware virtualization, by the name that QEMU gives it."""
HAS_SECCOMP = True
"""Whether a process can give up system calls for good."""
HAS_MEMORY_FILES = True
"""Whether QEMU can map a guest's memory from a file."""
KVM = Path("/dev/kvm")
_CPU_TABLE = Path("/proc/cpuinfo")
_MODULES = Path("/proc/modules")
_NESTED = (
    Path("/sys/module/kvm_intel/parameters/nested"),
    Path("/sys/module/kvm_amd/parameters/nested"),
)
_MOST_NAMESPACES = Path("/proc/sys/user/max_user_namespaces")
_UNPRIVILEGED = Path("/proc/sys/kernel/unprivileged_userns_clone")
_APPARMOR = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
_GROUP = "kvm"
_READ_AND_WRITE = stat.S_IRGRP | stat.S_IWGRP


def _flags() -> frozenset[str]:
    """Return the processor's features."""
    try:
        with _CPU_TABLE.open("rb") as file:
            for line in file.read(1 << 14).splitlines():
                if line.startswith((b"flags", b"Features")):
                    return frozenset(line.partition(b":")[2].decode().split())
    except OSError:
        pass  # without /proc nothing is known
    return frozenset()


def accelerator_obstacle() -> str:
    """Return why this user cannot even try KVM, or ""."""
    if not KVM.exists():
        return "this host has no /dev/kvm (no hardware virtualization, or it is off in the BIOS)"
    if not os.access(KVM, os.R_OK | os.W_OK):
        return "/dev/kvm exists, but this user may not open it: join its group, usually kvm"
    return ""


def accelerator_remedy() -> str:
    """Return what lets this user open /dev/kvm, or "" if it can be opened."""
    try:
        status = KVM.stat()
    except FileNotFoundError:
        return _no_device_remedy(_flags())
    if os.access(KVM, os.R_OK | os.W_OK):
        return ""
    return permission_remedy(status.st_mode, _group_name(status.st_gid), is_member(status.st_gid))


def _no_device_remedy(flags: frozenset[str]) -> str:
    if "vmx" in flags:
        return "as root: modprobe kvm_intel"
    if "svm" in flags:
        return "as root: modprobe kvm_amd"
    if "hypervisor" in flags:
        return "this host is a virtual machine itself: turn nested virtualization on where it runs"
    return "turn virtualization on in the firmware (VT-x, AMD-V or SVM), if the processor has it"


def permission_remedy(mode: int, group: str, member: bool) -> str:
    """Return the command that lets this user open /dev/kvm of this mode and group.

    `member`: the user is in the group by the system's database, but not in this session.
    """
    if group not in ("", "root") and mode & _READ_AND_WRITE == _READ_AND_WRITE:
        if member:
            return f"log in again: you are in the group {group} since then"
        return f'as root: usermod -aG {group} "$USER"; then log in again'
    # Joining the group root, or one that may not write, would give much or nothing.
    return (
        f"as root: groupadd -rf {_GROUP}; chgrp {_GROUP} {KVM}; chmod 660 {KVM};"
        f' usermod -aG {_GROUP} "$USER"; then log in again'
        " (until the next boot; for good, a udev rule:"
        f' KERNEL=="kvm", GROUP="{_GROUP}", MODE="0660")'
    )


def _group_name(number: int) -> str:
    import grp

    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return ""


def is_member(group: int) -> bool:
    """Tell whether the system's database has this user in the group with that number."""
    import pwd

    try:
        user = pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return group in os.getgrouplist(user.pw_name, user.pw_gid)


def describe_nesting() -> str:
    """Say whether this host is a virtual machine, and whether machines in it could have their own.

    Returns "" if there is nothing to say.
    """
    parts = []
    if "hypervisor" in _flags():
        parts.append("this host is a virtual machine itself")
    for path in _NESTED:
        try:
            is_on = path.read_text().strip() in ("1", "Y")
        except OSError:
            continue  # KVM is not loaded, or is the other one
        parts.append(f"KVM {'lets' if is_on else 'does not let'} its guests have KVM of their own")
    return "; ".join(parts)


def loaded_modules() -> frozenset[str]:
    """Return the names of the kernel's modules."""
    try:
        return frozenset(line.split(" ", 1)[0] for line in _MODULES.read_text().splitlines())
    except OSError:
        return frozenset()


def namespaces_remedy() -> str:
    """Return what lets this user make user namespaces, or "" if nothing known forbids it."""
    for path, forbidding, setting in (
        (_MOST_NAMESPACES, "0", "user.max_user_namespaces=10000"),
        (_UNPRIVILEGED, "0", "kernel.unprivileged_userns_clone=1"),
        (_APPARMOR, "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
    ):
        try:
            text = path.read_text().strip()
        except OSError:
            continue  # this kernel has no such switch
        if text == forbidding:
            return f"as root: sysctl -w {setting}"
    return ""
