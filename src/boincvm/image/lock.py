"""image.lock: exactly which packages an image was made of (docs/images.md, "The lock file").

It is TOML, one package a line, so that a version control system shows what an update has changed.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from boincvm.errors import JobFileError
from boincvm.job import values
from boincvm.job.toml_table import Entry, Kind, Table, read_table
from boincvm.job.values import UnexpectedValueError, describe

FORMAT = 1
MOST = 5000
"""Packages in a lock file, and distributions of PyPI."""
_MOST_SHOWN = 20
_KIND = Kind("a lock file", "images")
_TOP = ("format", "recipe", "package", "python")
_RECIPE = ("suite", "architecture", "kernel", "packages", "recommends", "pip", "configured")
_PACKAGE = ("name", "version", "architecture", "sha256")
_PYTHON = ("name", "version", "sha256")
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]{1,127}")
_VERSION = re.compile(r"(?:[0-9]{1,9}:)?[0-9][A-Za-z0-9.+~-]{0,127}")
_ARCHITECTURE = re.compile(r"[a-z0-9-]{2,30}")
_PYTHON_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_PYTHON_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+!_-]{0,60}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_HEAD = """\
# What an image is made of. Written by `boincvm image build`, which uses exactly these versions;
# `boincvm image build --update` renews it.
"""


class LockedPackage(NamedTuple):
    """A Debian package file."""

    name: str
    version: str
    architecture: str
    sha256: str

    @property
    def file_name(self) -> str:
        """Return the name that apt gives the file."""
        version = self.version.replace(":", "%3a")
        return f"{self.name}_{version}_{self.architecture}.deb"


class Distribution(NamedTuple):
    """A wheel of PyPI."""

    name: str
    version: str
    sha256: str


class Asked(NamedTuple):
    """What a recipe says that decides which packages there are."""

    suite: str
    architecture: str
    kernel: str
    """`debian`, or another name: then Debian's kernel is not among the packages."""
    packages: tuple[str, ...]
    recommends: bool
    pip: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lock:
    """The contents of a lock file."""

    asked: Asked
    configured: bool
    """The packages' scripts run when the image is built."""
    packages: tuple[LockedPackage, ...]
    """Sorted by name."""
    python: tuple[Distribution, ...] = ()
    """Sorted by name."""

    def encode(self) -> str:
        """Return the file's text. Equal locks give equal texts."""
        asked = self.asked
        lines = [
            _HEAD,
            f"format = {FORMAT}",
            "",
            "[recipe]",
            f"suite = {_text(asked.suite)}",
            f"architecture = {_text(asked.architecture)}",
            f"kernel = {_text(asked.kernel)}",
            f"packages = [{', '.join(map(_text, asked.packages))}]",
            f"recommends = {_flag(asked.recommends)}",
            f"pip = [{', '.join(map(_text, asked.pip))}]",
            f"configured = {_flag(self.configured)}",
        ]
        for kind, items in (("package", self.packages), ("python", self.python)):
            for item in items:
                pairs = zip(item._fields, item, strict=True)
                lines += ["", f"[[{kind}]]", *(f"{key} = {_text(value)}" for key, value in pairs)]
        return "\n".join([*lines, ""])


def _text(value: str) -> str:
    return f'"{value}"'  # no name, version or digest has a character to be escaped


def _flag(value: bool) -> str:
    return "true" if value else "false"


def read_lock(path: Path, asked: Asked | None = None) -> Lock:
    """Read a lock file, which must be for a recipe that asks for `asked`, if that is given.

    Raises JobFileError with file, line, what was found and what was expected.
    """
    check_regular(path, _KIND)
    top = read_table(path, _KIND)
    top.check_keys(_TOP, {})
    top.require("format", _format)
    recipe = top.table("recipe")
    recipe.check_keys(_RECIPE, {})
    found = _asked(recipe)
    if asked is not None:
        _check_fit(recipe, found, asked)
    lock = Lock(
        asked=found,
        configured=recipe.require("configured", values.flag),
        packages=tuple(_package(entry.table()) for entry in _entries(top, "package")),
        python=tuple(_distribution(entry.table()) for entry in _entries(top, "python")),
    )
    for key, names in (
        ("package", [package.name for package in lock.packages]),
        ("python", [distribution.name for distribution in lock.python]),
    ):
        if len(set(names)) != len(names):
            repeated = next(name for name in names if names.count(name) > 1)
            raise top.fault(key, f"{repeated} twice", "each name once")
    return lock


def check_regular(path: Path, kind: Kind) -> None:
    """Check that what is there, if anything, is a file: a FIFO would keep its reader waiting.

    Raises JobFileError.
    """
    if path.exists() and not path.is_file():
        raise JobFileError(
            f"{str(path)!r}: found no regular file, expected {kind.name}",
            hint="remove it, or give another recipe",
        )


def _entries(top: Table, key: str) -> list[Entry]:
    return top.entries(key, f"tables, each beginning with [[{key}]]", MOST)


def _format(value: object) -> int:
    if value != FORMAT or isinstance(value, bool):
        raise UnexpectedValueError(
            describe(value), f"{FORMAT}, the format that this version of boincvm reads"
        )
    return FORMAT


def _asked(recipe: Table) -> Asked:
    def names(key: str) -> tuple[str, ...]:
        entries = recipe.entries(key, "an array of names", MOST)
        return tuple(entry.value(values.filled_text) for entry in entries)

    return Asked(
        suite=recipe.require("suite", values.filled_text),
        architecture=recipe.require("architecture", values.filled_text),
        kernel=recipe.require("kernel", values.filled_text),
        packages=names("packages"),
        recommends=recipe.require("recommends", values.flag),
        pip=names("pip"),
    )


def _check_fit(recipe: Table, found: Asked, asked: Asked) -> None:
    """Check that the lock is for this recipe."""
    for key, is_there, wanted in zip(asked._fields, found, asked, strict=True):
        if is_there != wanted:
            fault = recipe.fault(key, _shown(is_there), f"{_shown(wanted)}, as in the recipe")
            raise JobFileError(
                fault.message,
                hint="the recipe has changed since: renew its lock file with --update",
            )


def _shown(value: object) -> str:
    """Describe a value of the recipe; of several names all."""
    if not isinstance(value, tuple):
        return describe(value)
    more = ", …" if len(value) > _MOST_SHOWN else ""
    return f"[{', '.join(map(describe, value[:_MOST_SHOWN]))}{more}]"


def _package(table: Table) -> LockedPackage:
    table.check_keys(_PACKAGE, {})
    return LockedPackage(
        name=table.require("name", _matching(_NAME, "a Debian package's name")),
        version=table.require("version", _matching(_VERSION, "a Debian package's version")),
        architecture=table.require("architecture", _matching(_ARCHITECTURE, "an architecture")),
        sha256=table.require("sha256", _matching(_DIGEST, "a SHA-256 digest, 64 of 0-9 a-f")),
    )


def _distribution(table: Table) -> Distribution:
    table.check_keys(_PYTHON, {})
    return Distribution(
        name=table.require("name", _matching(_PYTHON_NAME, "the name of a package of PyPI")),
        version=table.require("version", _matching(_PYTHON_VERSION, "a version")),
        sha256=table.require("sha256", _matching(_DIGEST, "a SHA-256 digest, 64 of 0-9 a-f")),
    )


def _matching(pattern: re.Pattern[str], expected: str) -> Callable[[object], str]:
    def convert(value: object) -> str:
        text = values.any_text(value)
        if pattern.fullmatch(text) is None:
            raise UnexpectedValueError(describe(value), expected)
        return text

    return convert


class Changes(NamedTuple):
    """How a lock differs from an earlier one: names, each with its versions."""

    added: dict[str, str]
    removed: dict[str, str]
    changed: dict[str, tuple[str, str]]
    """From and to."""

    def lines(self) -> list[str]:
        """Return a line for each change."""
        found = [(name, f"+ {name} {version}") for name, version in self.added.items()]
        found += [(name, f"- {name} {version}") for name, version in self.removed.items()]
        found += [(name, f"  {name} {old} → {new}") for name, (old, new) in self.changed.items()]
        return [line for _, line in sorted(found)]


def changes(before: Lock, after: Lock) -> Changes:
    """Return what differs between two locks. Names of PyPI begin with `PyPI:`."""
    old, new = _versions(before), _versions(after)
    return Changes(
        added={name: new[name][0] for name in sorted(new.keys() - old.keys())},
        removed={name: old[name][0] for name in sorted(old.keys() - new.keys())},
        changed={
            name: _pair(old[name], new[name])
            for name in sorted(old.keys() & new.keys())
            if old[name] != new[name]
        },
    )


def _pair(old: tuple[str, str], new: tuple[str, str]) -> tuple[str, str]:
    """Return both versions, or both digests if the version is the same."""
    if old[0] != new[0]:
        return old[0], new[0]
    return f"{old[0]} ({old[1][:12]})", f"{new[0]} ({new[1][:12]})"


def _versions(lock: Lock) -> Mapping[str, tuple[str, str]]:
    debian: Iterable[tuple[str, tuple[str, str]]] = (
        (package.name, (package.version, package.sha256)) for package in lock.packages
    )
    python = (
        (f"PyPI:{distribution.name}", (distribution.version, distribution.sha256))
        for distribution in lock.python
    )
    return {**dict(debian), **dict(python)}
