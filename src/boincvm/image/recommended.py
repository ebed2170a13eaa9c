"""Packages that programs of others need in practice, although Debian only recommends them."""

import re

from boincvm.image.manifest import Manifest

_COMPILER = re.compile(r"(gcc|clang|tcc)(-\d+(\.\d+)?)?")
_CXX_COMPILER = re.compile(r"g\+\+(-\d+)?")
_HEADERS = "libc6-dev"


def lacking_packages(manifest: Manifest) -> list[str]:
    """Return the packages without which a compiler in the image finds no stdio.h."""
    names = {package.name for package in manifest.packages}
    has_compiler = any(map(_COMPILER.fullmatch, names)) or any(map(_CXX_COMPILER.fullmatch, names))
    return [_HEADERS] if has_compiler and _HEADERS not in names else []
