"""Which files of an image stay when it is shrunk to what an app touches."""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

ALWAYS = {
    "the agent and Python, which runs it": (
        r"usr/lib/boincvm/.*",
        r"usr/bin/python3[^/]*",
        r"usr/lib/python3\.\d+/os\.py",  # by which Python finds its library
    ),
    "the dynamic loader, the C library and what they load by name": (
        r"usr/lib(64)?/(.*/)?ld-(linux|musl)[^/]*",
        r"usr/lib/[^/]*/(libc|libm|libdl|libpthread|librt|libresolv|libnss_[^/]*|libgcc_s)\.so[^/]*",
        r"usr/lib/[^/]*/gconv/(gconv-modules|UTF-16\.so|ISO8859-1\.so)",
    ),
    "shells, busybox and env": (r"usr/bin/(sh|dash|bash|busybox|env)",),
    "descriptions of terminals": (r"(usr/)?(lib|share)/terminfo/.*",),
    "settings: accounts, CA certificates, the time zone, alternatives": (
        r"etc/.*",
        r"usr/share/ca-certificates/.*",
        r"usr/share/zoneinfo/(Etc/)?UTC",
        r"root/.*",
    ),
    "the locale C.UTF-8": (r"usr/lib/locale/(C\.utf8/.*|locale-archive)",),
    "copyright notices and the list of packages": (
        r"usr/share/doc/[^/]+/copyright",
        r"usr/share/common-licenses/.*",
        r"var/lib/dpkg/status",
    ),
}
"""What stays in any case, by reason: patterns of whole paths."""

_ALWAYS = re.compile("|".join(pattern for found in ALWAYS.values() for pattern in found))
_COMPILED = re.compile(r"(?P<folder>.*/)?__pycache__/(?P<module>[^/]+?)\.[^/]*\.pyc")
_TOP = 2
"""Directories stay down to this depth, even if they are empty."""


def files_to_keep(
    names: Iterable[str],
    directories: Iterable[str],
    links: Mapping[str, str],
    touched: Iterable[str],
) -> frozenset[str]:
    """Return which entries of a tree stay.

    `names`: all entries; `directories`: those that are directories; `links`: what each link leads
    to, as a path in the tree. `touched`: what an app has touched; names that are no entries do not
    count.
    """
    entries = frozenset(names)
    folders = frozenset(directories)
    stay = {name for name in entries - folders if _ALWAYS.fullmatch(name)}
    stay |= entries.intersection(touched)
    # Python reads compiled code only if the source is there, whose attributes are all it looks at.
    sources = (_source_of(name) for name in stay)
    stay |= {source for source in sources if source in entries}
    stay |= {name for name in folders if name.count("/") < _TOP}
    before = -1
    while len(stay) > before:  # a link to a link
        before = len(stay)
        stay |= {name for name, target in links.items() if target in stay and name not in folders}
    for name in [*stay]:
        stay |= {parent.as_posix() for parent in PurePosixPath(name).parents[:-1]}
    return frozenset(stay)


def with_siblings(touched: Iterable[str], names: Iterable[str]) -> frozenset[str]:
    """Return what was touched and all files beside it: an app may only look whether they exist."""
    found = frozenset(touched)
    folders = {name.rpartition("/")[0] for name in found}
    return found | {name for name in names if name.rpartition("/")[0] in folders}


def _source_of(name: str) -> str:
    found = _COMPILED.fullmatch(name)
    return f"{found['folder'] or ''}{found['module']}.py" if found else ""
