"""Packages that programs of others need in practice, although Debian only recommends them."""

import re
from collections.abc import Iterable

from boincvm.image.manifest import Package

_COMPILER = re.compile(r"(gcc|clang|tcc)(-\d+(\.\d+)?)?")
_CXX_COMPILER = re.compile(r"g\+\+(-\d+)?")
_HEADERS = "libc6-dev"


def lacking_packages(packages: Iterable[Package]) -> list[str]:
    """Return the packages without which a compiler among `packages` finds no stdio.h."""
    names = {package.name for package in packages}
    has_compiler = any(map(_COMPILER.fullmatch, names)) or any(map(_CXX_COMPILER.fullmatch, names))
    return [_HEADERS] if has_compiler and _HEADERS not in names else []
