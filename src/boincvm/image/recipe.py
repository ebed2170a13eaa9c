"""Reads image.toml, a recipe for an image (docs/images.md, "Make an image").

A recipe may come from anybody: what it names lies in its own directory, and its sizes have limits.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from boincvm.errors import BoincvmError, JobFileError
from boincvm.host.files import read_regular
from boincvm.image.architectures import AMD64, ARCHITECTURES
from boincvm.image.build_check import Check
from boincvm.image.build_inputs import DEBIAN, PYTHON_OF_SUITE
from boincvm.image.build_script import BuildScript
from boincvm.image.customization import OwnFile, check_own_files, check_requirements, own_file
from boincvm.image.kernels.store import SMALL
from boincvm.image.lock import Asked, check_regular
from boincvm.image.names import MOST_PACKAGES, check_package_names
from boincvm.job import values
from boincvm.job.model import GIB, MIB
from boincvm.job.toml_table import Entry, Kind, Table, read_table
from boincvm.job.values import UnexpectedValueError, describe
from boincvm.portable_names import PORTABLE_NAME, is_portable

RECIPE = "image.toml"
LOCK = "image.lock"
SUITES = tuple(PYTHON_OF_SUITE)
"""The default one first."""
KEYS = {
    "": (
        *("name", "suite", "architecture", "kernel", "packages", "recommends", "pip", "memory"),
        *("files", "script", "check"),
    ),
    "[[files]]": ("from", "to"),
    "[script]": ("file", "text", "limit", "disk"),
    "[check]": ("command", "limit"),
}
"""The keys of each table."""
LARGEST_SCRIPT = 64 << 10
"""Bytes."""
DEFAULT_LIMIT, LONGEST_LIMIT = 600.0, 6 * 3600.0
"""Seconds that a script may run."""
DEFAULT_CHECK_LIMIT = 60.0
DEFAULT_DISK, DISK_BOUNDS = GIB, (MIB, 6 * GIB)
"""Bytes that a script may write."""
MEMORY_BOUNDS = (64 * MIB, 64 * GIB)
_MOST_FILES = 1000
_KIND = Kind("a recipe", "images")
_ELSEWHERE = {table: keys for table, keys in KEYS.items() if table}


@dataclass(frozen=True, slots=True)
class ImageRecipe:
    """The contents of a recipe."""

    path: Path
    name: str | None
    """The image's name, if the recipe says one."""
    suite: str
    architecture: str
    kernel: str
    packages: tuple[str, ...]
    recommends: bool
    pip: tuple[str, ...]
    memory: int
    """Bytes that a machine needs at least; 0 for what the image itself needs."""
    files: tuple[OwnFile, ...]
    script: BuildScript | None
    check: Check | None

    @property
    def asked(self) -> Asked:
        return Asked(
            suite=self.suite,
            architecture=self.architecture,
            kernel=self.kernel,
            packages=self.packages,
            recommends=self.recommends,
            pip=self.pip,
        )

    @property
    def lock(self) -> Path:
        """Return the path of its lock file: image.lock, or another recipe's name with .lock."""
        return self.path.with_suffix(".lock")


def recipe_path(text: str) -> Path | None:
    """Return the recipe that `text` names: a file, or a directory with one; else None.

    A name without a slash is a recipe's only if it ends with .toml, or is such a directory's.
    """
    path = Path(text)
    with suppress(OSError):  # an image's name, in a directory that this user may not read
        if (path / RECIPE).is_file():
            return path / RECIPE
    if text.endswith(".toml"):
        return path
    return path / RECIPE if os.sep in text or text in (".", "..") else None


def read_recipe(path: Path) -> ImageRecipe:
    """Read a recipe. Raises JobFileError with file, line, what was found and what was expected."""
    check_regular(path, _KIND)
    top = read_table(path, _KIND)
    top.check_keys(KEYS[""], _ELSEWHERE)
    directory = path.absolute().parent
    return ImageRecipe(
        path=path,
        name=top.get("name", values.image_name, None),
        suite=top.get("suite", _one_of(*SUITES), SUITES[0]),
        architecture=top.get("architecture", _one_of(*ARCHITECTURES), AMD64.name),
        kernel=top.get("kernel", _one_of(DEBIAN, SMALL), DEBIAN),
        packages=_names(top, "packages", check_package_names),
        recommends=top.get("recommends", values.flag, False),
        pip=_names(top, "pip", check_requirements),
        memory=top.get("memory", _size(MEMORY_BOUNDS), 0),
        files=_files(top, directory),
        script=_script(top, directory),
        check=_check(top),
    )


def _one_of(*known: str) -> Callable[[object], str]:
    def convert(value: object) -> str:
        if value not in known:
            raise UnexpectedValueError(describe(value), " or ".join(map(repr, known)))
        return str(value)

    return convert


def _size(bounds: tuple[int, int]) -> Callable[[object], int]:
    return partial(values.size_between, bounds=bounds)


def _text(value: object) -> str:
    """Read a text of one line that shows what it is."""
    text = values.filled_text(value)
    if not text.isprintable():
        raise UnexpectedValueError(describe(value), "a text without control characters")
    return text


def _names(
    top: Table, key: str, check: Callable[[tuple[str, ...]], tuple[str, ...]]
) -> tuple[str, ...]:
    """Read an array of names; `check` returns them in order, or raises a BoincvmError."""

    def convert(value: object) -> str:
        text = _text(value)
        try:
            check((text,))
        except BoincvmError as error:
            expected = f"a package's name ({error.hint})"
            raise UnexpectedValueError(describe(value), expected) from error
        return text

    entries = top.entries(key, "an array of names", MOST_PACKAGES)
    return check(tuple(entry.value(convert) for entry in entries))


def _files(top: Table, directory: Path) -> tuple[OwnFile, ...]:
    entries = top.entries("files", "tables, each with from and to", _MOST_FILES)
    files = []
    for entry in entries:
        table = entry.table()
        table.check_keys(KEYS["[[files]]"], _ELSEWHERE)
        source = table.require("from", _beneath(directory))
        target = table.require("to", _text)
        files.append(_converted(entry, partial(own_file, source, target)))
    try:
        return check_own_files(tuple(files))
    except BoincvmError as error:
        raise JobFileError(
            top.fault("files", error.message, "other files").message, hint=error.hint
        ) from error


def _converted(entry: Entry, make: Callable[[], OwnFile]) -> OwnFile:
    try:
        return make()
    except BoincvmError as error:
        found = error.message.removeprefix("found ")
        found, sign, expected = found.partition(", expected ")
        raise entry.fault(found, expected if sign else "another file") from error


def _beneath(directory: Path) -> Callable[[object], Path]:
    """Return a converter to the path of what lies in `directory`, also after following links."""

    def convert(value: object) -> Path:
        path = PurePosixPath(_text(value))
        if path.is_absolute() or ".." in path.parts or not path.parts:
            expected = "a path beneath the recipe's directory: relative and without '..'"
            raise UnexpectedValueError(describe(value), expected)
        if not is_portable(path):
            raise UnexpectedValueError(describe(value), PORTABLE_NAME)
        expected = "a file or directory beneath the recipe's directory"
        try:
            found = (directory / path).resolve(strict=True)
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "a loop of links"
            raise UnexpectedValueError(f"{describe(value)} ({reason})", expected) from error
        if not found.is_relative_to(directory.resolve()):
            raise UnexpectedValueError(f"{describe(value)}, a link that leads out", expected)
        return directory / path

    return convert


def _script(top: Table, directory: Path) -> BuildScript | None:
    if "script" not in top:
        return None
    table = top.table("script")
    table.check_keys(KEYS["[script]"], _ELSEWHERE)
    if ("file" in table) == ("text" in table):
        found = "both file and text" if "file" in table else "neither file nor text"
        raise top.fault("script", found, "one of them")

    def from_file(value: object) -> bytes:
        path = _beneath(directory)(value)
        try:
            content = read_regular(path.resolve(), LARGEST_SCRIPT + 1)
        except OSError as error:
            found = f"{describe(value)} ({error.strerror})"
            raise UnexpectedValueError(found, "a file that can be read") from error
        try:
            return _script_text(content.decode())
        except UnicodeDecodeError as error:
            raise UnexpectedValueError(f"{describe(value)}, not UTF-8", "a script") from error

    return BuildScript(
        text=table.require("file", from_file)
        if "file" in table
        else table.require("text", lambda value: _script_text(values.filled_text(value))),
        limit=table.get("limit", _limit, DEFAULT_LIMIT),
        disk=table.get("disk", _size(DISK_BOUNDS), DEFAULT_DISK),
    )


def _script_text(text: str) -> bytes:
    content = text.encode()
    if len(content) > LARGEST_SCRIPT:
        raise UnexpectedValueError(
            "a script of more than 64 KiB", "a shorter one: [[files]] adds files to the image"
        )
    odd = next((c for c in text if not (c.isprintable() or c in "\n\t")), None)
    if odd is not None:
        line = text.count("\n", 0, text.index(odd)) + 1
        raise UnexpectedValueError(
            f"the character {odd!a} in line {line} of the script",
            "text without control characters, whose lines end with a line feed",
        )
    return content


def _limit(value: object) -> float:
    seconds = values.duration(value)
    if seconds > LONGEST_LIMIT:
        raise UnexpectedValueError(describe(value), "at most 6 hours")
    return seconds


def _check(top: Table) -> Check | None:
    if "check" not in top:
        return None
    table = top.table("check")
    table.check_keys(KEYS["[check]"], _ELSEWHERE)
    return Check(
        argv=table.require("command", _command),
        limit=table.get("limit", _limit, DEFAULT_CHECK_LIMIT),
    )


def _command(value: object) -> tuple[str, ...]:
    argv = values.command(value)
    for argument in argv:
        if not argument.replace("\n", "").replace("\t", "").isprintable():
            raise UnexpectedValueError(describe(argument), "a text without control characters")
    return argv
