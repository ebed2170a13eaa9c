"""Rules for names that come from outside: images, packages, suites, mirrors."""

import re

from boincvm.errors import UsageError
from boincvm.host.file_names import is_storable
from boincvm.portable_names import PORTABLE_HINT, is_portable_part

MOST_PACKAGES = 1000

# Compiled when they are first used: a run needs only the first.
_IMAGE = r"[a-z0-9][a-z0-9._-]{0,63}"
_PACKAGE = r"[a-z0-9][a-z0-9+.-]{1,127}"
_SUITE = r"[a-z][a-z0-9-]{0,63}"
_MIRROR = r"(?:https?|file|copy)://[A-Za-z0-9._~:/@%+\[\]-]+"


def check_image_name(name: str, *, is_new: bool = True) -> str:
    """Return `name`. Raises UsageError unless every file system accepts it as a file name.

    `is_new`: False for the name of an image that may have been made before names were refused that
    only other hosts cannot store.
    """
    hint = "use at most 64 of a-z 0-9 . _ - and begin with a letter or a digit"
    _matching(_IMAGE, name, "an image's name", hint)
    if not (is_portable_part(name) if is_new else is_storable(name)):
        raise UsageError(f"{name!r} is not an image's name", hint=PORTABLE_HINT)
    return name


def check_package_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names sorted and without duplicates.

    Raises UsageError for a name that is invalid in Debian (Policy, 5.6.1).
    """
    if len(names) > MOST_PACKAGES:
        raise UsageError(
            f"{len(names)} packages are too many",
            hint=f"name at most {MOST_PACKAGES}; their dependencies are added automatically",
        )
    for name in names:
        hint = "a name has at least two of a-z 0-9 + . - and begins with a letter or digit"
        _matching(_PACKAGE, name, "a Debian package's name", hint)
    return tuple(sorted(set(names)))


def check_mirror(mirror: str) -> str:
    """Return `mirror`. Raises UsageError unless it is a plain URL that apt can use."""
    hint = "give a URL that begins with https://, http://, file:// or copy://"
    return _matching(_MIRROR, mirror, "a mirror's address", hint)


def check_suite(suite: str) -> str:
    """Return `suite`. Raises UsageError unless it can be the name of a suite of Debian's."""
    hint = "a name such as trixie-backports: a-z 0-9 and hyphens"
    return _matching(_SUITE, suite, "a suite's name", hint)


def _matching(pattern: str, text: str, what: str, hint: str) -> str:
    """Return `text`. Raises UsageError unless the pattern matches all of it."""
    if re.fullmatch(pattern, text) is None:
        raise UsageError(f"{text!r} is not {what}", hint=hint)
    return text
