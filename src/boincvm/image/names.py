"""Rules for names that come from outside: images, packages, suites, mirrors."""

import re

from boincvm.errors import UsageError

MOST_PACKAGES = 1000

# Compiled when they are first used: a run needs only the first.
_IMAGE = r"[a-z0-9][a-z0-9._-]{0,63}"
_PACKAGE = r"[a-z0-9][a-z0-9+.-]{1,127}"
_SUITE = r"[a-z][a-z0-9-]{0,63}"
_MIRROR = r"(?:https?|file|copy)://[A-Za-z0-9._~:/@%+\[\]-]+"


def check_image_name(name: str) -> str:
    """Return `name`. Raises UsageError unless every file system accepts it as a file name."""
    if re.fullmatch(_IMAGE, name) is None:
        raise UsageError(
            f"{name!r} is not an image's name",
            hint="use at most 64 of a-z 0-9 . _ - and begin with a letter or a digit",
        )
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
        if re.fullmatch(_PACKAGE, name) is None:
            raise UsageError(
                f"{name!r} is not a Debian package's name",
                hint="a name has at least two of a-z 0-9 + . - and begins with a letter or digit",
            )
    return tuple(sorted(set(names)))


def check_mirror(mirror: str) -> str:
    """Return `mirror`. Raises UsageError unless it is a plain URL that apt can use."""
    if re.fullmatch(_MIRROR, mirror) is None:
        raise UsageError(
            f"{mirror!r} is not a mirror's address",
            hint="give a URL that begins with https://, http://, file:// or copy://",
        )
    return mirror


def check_suite(suite: str) -> str:
    """Return `suite`. Raises UsageError unless it can be the name of a suite of Debian's."""
    if re.fullmatch(_SUITE, suite) is None:
        raise UsageError(
            f"{suite!r} is not a suite's name",
            hint="a name such as trixie-backports: a-z 0-9 and hyphens",
        )
    return suite
