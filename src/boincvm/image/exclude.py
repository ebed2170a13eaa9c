"""Files of the packages that do not go into an image, because nothing there reads them."""

import re
from pathlib import Path

from boincvm.image.tree import Tree

_UNREAD = re.compile(
    r"""
      boot/
    | (usr/)?lib/modules/
    | usr/share/(man|info|lintian|bug|doc-base|bash-completion|zsh|linda|pixmaps|gtk-doc|help)(/|$)
    | usr/share/doc/[^/]+/(?!copyright$)
    | usr/share/locale/(?!locale\.alias$)
    | usr/share/zoneinfo/(posix|right)/
    | usr/lib/python3\.\d+/(test|pydoc_data)/
    | usr/lib/valgrind/
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
_GCONV = "usr/lib/*/gconv/gconv-modules"
_GCONV_LISTS = ("gconv-modules.cache", "gconv-modules.d")
_KERNEL = re.compile(r"linux-image-.*|linux-base|initramfs-tools(-core|-bin)?|klibc-utils|libklibc")


def is_for_kernel(package: str) -> bool:
    """Tell whether a package is only needed by the kernel's package.

    Kernel and modules lie outside of the root disk.
    """
    return _KERNEL.fullmatch(package) is not None


def is_unread(name: str) -> bool:
    """Tell whether nothing, not even a package's script, needs the file `name`.

    `name` is relative (`usr/share/man/...`). Copyright files stay, because licenses require them.
    """
    return _UNREAD.match(name) is not None


def is_unused(name: str) -> bool:
    """Tell whether nothing needs the file `name` once the packages are configured."""
    return is_unread(name) or _UNUSED.match(name) is not None


def remove_unused(tree: Tree, *, are_configured: bool = True) -> None:
    """Remove from `tree` what is no longer needed. Raises ImageBuildError.

    `are_configured`: scripts of packages have run. Without such packages, as in `base`, rare
    character sets are left out, too.
    """
    for name in reversed(tree.names()):
        if is_unused(name):
            tree.remove(name)
    if not are_configured:
        for path in sorted(tree.directory.glob(_GCONV)):
            _remove_rare_character_sets(tree, path)


def _remove_rare_character_sets(tree: Tree, configuration: Path) -> None:
    """Remove what glibc's own configuration calls extra: some 240 of its 250 modules of iconv.

    The others are found by `configuration` as soon as there is no cache.
    """
    words = [line.split() for line in configuration.read_text().splitlines()]
    common = {word[3] for word in words if len(word) > 3 and word[0] == "module"}
    for path in sorted(configuration.parent.iterdir()):
        if (path.suffix == ".so" and path.stem not in common) or path.name in _GCONV_LISTS:
            tree.remove(path.relative_to(tree.directory).as_posix())
