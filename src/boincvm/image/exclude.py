"""What of the packages does not go into an image: nobody reads or runs it there."""

import re

from boincvm.image.tree import Tree

_UNREAD = re.compile(
    r"""
      boot/
    | (usr/)?lib/modules/
    | usr/share/(man|info|lintian|bug|doc-base|bash-completion|zsh|linda|pixmaps|gtk-doc|help)(/|$)
    | usr/share/doc/[^/]+/(?!copyright$)
    | usr/share/locale/(?!locale\.alias$)
    | usr/share/zoneinfo/(posix|right)/
    | var/(cache|log)/apt(/|$)
    | dev/
    """,
    re.VERBOSE,
)
_UNUSED = re.compile(
    r"""
      (usr/)?lib/(udev|systemd|klibc[^/]*)(/|$)
    | usr/lib/(systemd|udev|tmpfiles\.d|sysusers\.d|binfmt\.d|klibc)(/|$)
    | usr/share/(initramfs-tools|icons|applications|menu|metainfo|pam-configs|binfmts)(/|$)
    | usr/share/i18n/
    | etc/(init\.d|rc[0-9S]\.d|udev|initramfs-tools|kernel|modprobe\.d|systemd)(/|$)
    | etc/(cron\.[a-z]+|logrotate\.d)(/|$)
    """,
    re.VERBOSE,
)
_KERNEL = re.compile(r"linux-image-.*|linux-base|initramfs-tools(-core|-bin)?|klibc-utils|libklibc")


def is_for_kernel(package: str) -> bool:
    """Whether that package is only there because the kernel's package wants it; the kernel and
    its modules lie outside of the root disk."""
    return _KERNEL.fullmatch(package) is not None


def is_unread(name: str) -> bool:
    """Whether nobody needs the file `name` (relative, `usr/share/man/...`), not even a script of
    a package. Copyright files stay: licenses ask for it."""
    return _UNREAD.match(name) is not None


def is_unused(name: str) -> bool:
    """Whether nobody needs the file `name` once the packages are configured."""
    return is_unread(name) or _UNUSED.match(name) is not None


def trim(tree: Tree) -> None:
    """Remove from `tree` what nobody needs any more. Raises ImageBuildError."""
    for name in reversed(tree.names()):
        if is_unused(name):
            tree.remove(name)
