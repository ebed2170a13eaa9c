"""Files that Debian's maintainer scripts and installer would have put into the root."""

from collections.abc import Iterable

from boincvm.image.tools import run_tool
from boincvm.image.tree import Attributes, Tree

_SHADOW_GROUP = 42
_MAIL_GROUP = 8
"""The group's number in base-passwd, the same in every Debian."""

HOSTS = b"127.0.0.1 localhost guest\n::1 localhost ip6-localhost ip6-loopback\n"
_MASTER_FILES = {
    "etc/passwd": "usr/share/base-passwd/passwd.master",
    "etc/group": "usr/share/base-passwd/group.master",
    "etc/nsswitch.conf": "usr/share/libc-bin/nsswitch.conf",
    "etc/profile": "usr/share/base-files/profile",
    "root/.profile": "usr/share/base-files/dot.profile",
    "root/.bashrc": "usr/share/base-files/dot.bashrc",
}
_FILES = {
    "etc/hostname": b"guest\n",
    "etc/hosts": HOSTS,
    "etc/resolv.conf": b"",
    "etc/fstab": b"",
    "etc/machine-id": b"",
    "etc/timezone": b"Etc/UTC\n",
}
_LINKS = {
    "usr/bin/sh": "dash",
    "etc/mtab": "../proc/self/mounts",
    "etc/localtime": "/usr/share/zoneinfo/Etc/UTC",
    "etc/dpkg/origins/default": "debian",
    "var/spool/mail": "../mail",
    "usr/local/man": "share/man",
}
_LINKS_BEFORE = {"var/run": "/run", "var/lock": "/run/lock"}
"""Links in place of directories that packages bring."""
_DIRECTORIES = {
    **dict.fromkeys(("dev", "proc", "sys", "run", "work", "etc", "mnt", "opt", "srv"), 0o755),
    **dict.fromkeys(("home", "media", "var/lib/dpkg", "var/opt"), 0o755),
    **{
        f"usr/local/{name}": 0o755
        for name in ("bin", "etc", "games", "include", "lib", "sbin", "share/man", "src")
    },
    **dict.fromkeys(("tmp", "var/tmp"), 0o1777),
    "root": 0o700,
    # Without it octave fails: it makes the directory for its history, but not the parents.
    "root/.local": 0o700,
    "root/.local/share": 0o700,
}
_NOT_BUSYBOX = {"busybox", "dpkg", "dpkg-deb", "init", "linuxrc", "rpm", "rpm2cpio"}
"""Applets of no use in a guest, or easily mistaken for the real program."""


def add_links_before(tree: Tree) -> None:
    """Add the links that must exist before packages are unpacked. Raises ImageBuildError."""
    for name, target in _LINKS_BEFORE.items():
        tree.add_link(name, target)


def add_system_files(tree: Tree) -> None:
    """Add accounts, host names, empty directories and /bin/sh. Raises ImageBuildError."""
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
    _add_shells(tree)
    tree.add_directory("var/mail", Attributes(0o2775, 0, _MAIL_GROUP))


def _add_shadow(tree: Tree) -> None:
    accounts = (tree.directory / "etc/passwd").read_text().splitlines()
    names = [account.split(":", 1)[0] for account in accounts]
    content = "".join(f"{name}:*:19000:0:99999:7:::\n" for name in names)
    tree.add_file("etc/shadow", content.encode(), Attributes(0o640, 0, _SHADOW_GROUP))


def _add_shells(tree: Tree) -> None:
    """Write the list of the installed shells, as `update-shells` does.

    They are those of debianutils and of each shell's package.
    """
    directory = tree.directory / "usr/share/debianutils"
    shells: list[str] = []
    for path in (directory / "shells", *sorted((directory / "shells.d").glob("*"))):
        if path.is_file():
            for line in path.read_text().splitlines():
                shells += [line] if line.startswith(("#", "/usr/")) else [line, f"/usr{line}"]
    tree.add_file("etc/shells", "".join(f"{line}\n" for line in dict.fromkeys(shells)).encode())


def busybox_commands(programs: Tree) -> list[str]:
    """Return the names of the commands of `programs`' busybox. Raises ImageBuildError."""
    applets = run_tool([programs.directory / "bin/busybox", "--list"]).decode().split()
    return sorted(set(applets) - _NOT_BUSYBOX)


def add_busybox_commands(tree: Tree, programs: Tree) -> None:
    """Add a link for each command of `programs`' busybox that no package provides."""
    link_to_busybox(tree, busybox_commands(programs))


def link_to_busybox(tree: Tree, applets: Iterable[str]) -> None:
    """Add a link for each of these commands of busybox that the tree lacks."""
    for applet in sorted(set(applets) - _NOT_BUSYBOX):
        if not any(tree.exists(f"usr/{folder}/{applet}") for folder in ("bin", "sbin")):
            tree.add_link(f"usr/bin/{applet}", "busybox")
