"""Which of the fetched packages an image needs.

apt fetches the kernel's package with all that Debian's installer would make of it: a program that
writes an initial RAM disk, and udev, kmod, PAM and others for that. An image has its own initial
RAM disk, so what only the kernel's package depends on is left out.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from boincvm.image.tree import Tree
from boincvm.image.unpack import Control

_KERNEL = re.compile(r"linux-image-\d")
"""Matches a kernel package, but not one such as `linux-image-cloud-amd64`: that one is empty and
depends on the newest kernel."""
_DEPENDENCIES = ("Depends", "Pre-Depends")
_FIELD = r"^{}:\s*(.*(?:\n[ \t].*)*)"
_STANDARD_LIBRARY = re.compile(r"libpython3\.\d+-stdlib")


class _Module(NamedTuple):
    """A module of Python's standard library that is left out with the packages it needs."""

    file: str
    """Its file in the tree, as a pattern."""
    packages: tuple[str, ...]
    """What nothing else in the standard library needs."""


_MODULES = (
    # Sun's Network Information Service, gone in Python 3.13; it brings Kerberos.
    _Module("usr/lib/python3.*/lib-dynload/nis.*.so", ("libnsl2", "libtirpc3")),
    # Files of Berkeley DB; the module dbm uses dbm.dumb without it.
    _Module("usr/lib/python3.*/lib-dynload/_dbm.*.so", ("libdb5.3",)),
)


def is_kernel(package: str) -> bool:
    """Tell whether a package holds a kernel itself."""
    return _KERNEL.match(package) is not None


def needed_names(
    controls: Sequence[Control],
    wanted: Iterable[str],
    *,
    recommends: bool,
    are_configured: bool,
) -> frozenset[str]:
    """Return the names of those packages that `wanted` need, and of the kernel's.

    `recommends`: also those that they recommend. `are_configured`: their scripts will run, which
    needs the Essential packages and, for dpkg, each dependency; otherwise the standard library of
    Python does without a few.
    """
    known = {control.package.name: control for control in controls}
    providers: dict[str, list[str]] = {}
    for name, control in known.items():
        for provided in _names(control, "Provides"):
            providers.setdefault(provided, []).append(name)
    spared = frozenset() if are_configured else frozenset(_spared())
    fields = (*_DEPENDENCIES, "Recommends") if recommends else _DEPENDENCIES
    waiting = [*wanted]
    if are_configured:
        waiting += [name for name, control in known.items() if _is_essential(control)]
    needed: set[str] = set()
    while waiting:
        name = waiting.pop()
        waiting += [other for other in providers.get(name, ()) if other not in needed]
        if name not in known or name in needed:
            continue
        needed.add(name)
        others = {other for field in fields for other in _names(known[name], field)}
        if _STANDARD_LIBRARY.fullmatch(name):
            others -= spared
        waiting += sorted(others - needed)
    return frozenset(needed | {name for name in known if is_kernel(name)})


def remove_spared_modules(tree: Tree, names: Iterable[str]) -> None:
    """Remove the standard library's modules whose packages are not among `names`."""
    present = set(names)
    for module in _MODULES:
        if present.isdisjoint(module.packages):
            for path in sorted(tree.directory.glob(module.file)):
                tree.remove(path.relative_to(tree.directory).as_posix())


def _spared() -> set[str]:
    return {package for module in _MODULES for package in module.packages}


def _is_essential(control: Control) -> bool:
    # usr-is-merged is there in place of the program that would merge /usr.
    return "yes" in _names(control, "Essential") or control.package.name == "usr-is-merged"


def _names(control: Control, field: str) -> list[str]:
    """Return the packages that a field names, all alternatives, without versions."""
    found = re.search(_FIELD.format(field), control.text, re.MULTILINE)
    if found is None:
        return []
    words = (part.split() for part in re.split(r"[,|]", found[1]))
    return [word[0].partition(":")[0].partition("(")[0] for word in words if word]
