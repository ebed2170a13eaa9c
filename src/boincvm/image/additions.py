"""What Debian's maintainer scripts and installer would have put into the root."""

from boincvm.image.tools import run_tool
from boincvm.image.tree import Attributes, Tree
from boincvm.image.unpack import Control

_SHADOW_GROUP = 42
"""base-passwd's, in every Debian."""

_HOSTS = b"127.0.0.1 localhost guest\n::1 localhost ip6-localhost ip6-loopback\n"
_MASTER_FILES = {
    "etc/passwd": "usr/share/base-passwd/passwd.master",
    "etc/group": "usr/share/base-passwd/group.master",
    "etc/nsswitch.conf": "usr/share/base-files/nsswitch.conf",
    "etc/profile": "usr/share/base-files/profile",
}
_FILES = {
    "etc/hostname": b"guest\n",
    "etc/hosts": _HOSTS,
    "etc/resolv.conf": b"",
    "etc/fstab": b"",
    "etc/machine-id": b"",
}
_LINKS = {
    "usr/bin/sh": "dash",
    "etc/mtab": "../proc/self/mounts",
    "etc/localtime": "/usr/share/zoneinfo/Etc/UTC",
    "var/run": "/run",
    "var/lock": "/run/lock",
}
_DIRECTORIES = {
    **dict.fromkeys(("dev", "proc", "sys", "run", "work", "etc", "mnt", "opt", "srv"), 0o755),
    **dict.fromkeys(("home", "var/lib/dpkg", "usr/local/bin", "usr/local/lib"), 0o755),
    **dict.fromkeys(("tmp", "var/tmp"), 0o1777),
    "root": 0o700,
}
_NOT_BUSYBOX = {"busybox", "dpkg", "dpkg-deb", "init", "linuxrc", "rpm", "rpm2cpio"}
"""Applets that are no use in a guest, or would pass for something they are not."""


def add_system_files(tree: Tree, controls: list[Control]) -> None:
    """Accounts, names, empty places, /bin/sh, dpkg's list. Raises ImageBuildError."""
    for name, mode in _DIRECTORIES.items():
        tree.add_directory(name, Attributes(mode))
    for name, master in _MASTER_FILES.items():
        source = tree.directory / master
        if source.is_file():
            tree.add_file(name, source.read_bytes())
    for name, content in _FILES.items():
        tree.add_file(name, content)
    for name, target in _LINKS.items():
        tree.add_link(name, target)
    _add_shadow(tree)
    # The packages are unpacked, not configured: their scripts have not run.
    stanzas = [
        _with_status(control.text, "install ok unpacked")
        for control in sorted(controls, key=lambda control: control.package.name)
    ]
    tree.add_file("var/lib/dpkg/status", "\n\n".join([*stanzas, ""]).encode())


def _with_status(control: str, status: str) -> str:
    first, _, rest = control.partition("\n")
    return f"{first}\nStatus: {status}\n{rest}\n".rstrip()


def _add_shadow(tree: Tree) -> None:
    accounts = (tree.directory / "etc/passwd").read_text().splitlines()
    names = [account.split(":", 1)[0] for account in accounts]
    content = "".join(f"{name}:*:19000:0:99999:7:::\n" for name in names)
    tree.add_file("etc/shadow", content.encode(), Attributes(0o640, 0, _SHADOW_GROUP))


def add_busybox_commands(tree: Tree) -> None:
    """A link for each command that busybox has and no package brought."""
    applets = run_tool([tree.directory / "bin/busybox", "--list"]).decode().split()
    for applet in sorted(set(applets) - _NOT_BUSYBOX):
        if not any(tree.exists(f"usr/{folder}/{applet}") for folder in ("bin", "sbin")):
            tree.add_link(f"usr/bin/{applet}", "busybox")
