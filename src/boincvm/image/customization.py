"""What a user adds to an image beside Debian's packages: packages of PyPI, and own files.

Packages of PyPI come as wheels, so nothing of them runs on this computer. Everything is added after
the packages have been configured, and replaces files of theirs.
"""

import base64
import csv
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from boincvm.byte_text import one_line
from boincvm.errors import ImageBuildError, InputFileError, UsageError, host_error
from boincvm.image.architectures import HOST, ImageArchitecture
from boincvm.image.lock import Distribution
from boincvm.image.tools import ToolError, run_tool
from boincvm.image.tree import Attributes, Tree
from boincvm.json_value import fault_of
from boincvm.json_value import text as text_of

LIBRARIES = ("libexpat1", "libgcc-s1", "libstdc++6", "zlib1g")
"""Debian's packages of those libraries that a wheel does not bring, as every system has them
(PEP 513, PEP 600); the others are for graphics."""
_REQUIREMENT = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?"
    r"(?:\[[A-Za-z0-9._,-]{1,100}\])?"
    r"(?:(?:==|~=|!=|<=|>=|<|>)[A-Za-z0-9.*+!_-]{1,60}"
    r"(?:,(?:==|~=|!=|<=|>=|<|>)[A-Za-z0-9.*+!_-]{1,60})*)?"
)
_MOST = 1000
_MOST_BYTES = 6 << 30
"""Bytes of all own files: the disk has 8 GiB."""
_NOT_IN_IMAGES = ("dev", "proc", "run", "sys", "tmp", "work")
"""Directories that a machine makes anew when it boots."""
_DIRECTORIES = ("bin", "boot", "etc", "home", "lib", "lib64", "opt", "root", "sbin", "usr", "var")
"""What is a directory in every image, or leads to one."""
_UNREACHABLE = re.compile("connection broken by|Max retries exceeded|Could not fetch URL")
"""Pip's words about a connection; after them it says what it says of a wrong name, too."""
_GLIBC = range(17, 37)
"""Minor versions of glibc, up to bookworm's, for which a wheel may be made (PEP 600)."""
_PLATFORMS = {"amd64": "x86_64", "arm64": "aarch64"}
_HEADER = re.compile(
    rb"#![^\n]*python[^\n]*\n|#!/bin/sh\n\'{3}exec\' [^\n]*python[^\n]*\n\' \'{3}\n"
)
"""What pip writes before a program; the second one if its Python's path is long or has blanks."""
_FETCHED = "python-packages"
"""What pip has fetched, in a build's directory."""
_PACKAGES = "usr/local/lib/{python}/dist-packages"
"""Where Debian's Python looks for packages that Debian does not have."""


class OwnFile(NamedTuple):
    """A file or directory of this host, and its place in an image."""

    source: Path
    destination: PurePosixPath
    """Absolute."""
    digest: str
    """Of all its names, modes and contents."""
    size: int
    """Bytes."""


def check_requirements(requirements: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of PyPI's packages sorted and without duplicates. Raises UsageError."""
    for text in requirements:
        if _REQUIREMENT.fullmatch(text) is None:
            raise UsageError(
                f"found --pip {text[:80]!r}, expected a package of PyPI",
                hint="like numpy, numpy==2.1.3 or 'scipy>=1.14,<2'; --file adds files of your own",
            )
    if len(requirements) > _MOST:
        raise UsageError(f"found {len(requirements)} times --pip, expected at most {_MOST}")
    return tuple(sorted(set(requirements)))


def check_python(python: str, architecture: ImageArchitecture) -> None:
    """Check that pip, run by our Python, chooses what the image's Python needs.

    It decides by its own Python what a package requires of others. `python`: the image's, like
    python3.11. Raises UsageError.
    """
    ours = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if python != ours or architecture is not HOST:
        raise UsageError(
            f"--pip for {python} on {architecture.name} needs pip of the same Python and processor,"
            f" and boincvm runs with {ours} on {HOST.name}",
            hint=f"run boincvm with {python} on {architecture.name}; or install Debian's package,"
            " --package python3-NAME; or use pip in a machine, and boincvm image from-machine",
        )


def read_own_files(texts: tuple[str, ...]) -> tuple[OwnFile, ...]:
    """Read what `--file SRC:DST` names. Raises UsageError, InputFileError."""
    if len(texts) > _MOST:
        raise UsageError(f"found {len(texts)} times --file, expected at most {_MOST}")
    return check_own_files(tuple(map(_own_file, texts)))


def check_own_files(files: tuple[OwnFile, ...]) -> tuple[OwnFile, ...]:
    """Return the files by destination. Raises UsageError, InputFileError."""
    files = tuple(sorted(files, key=lambda file: file.destination))
    for before, after in pairwise(files):
        if before.destination == after.destination:
            raise UsageError(f"found two --file for {before.destination}, expected one")
    size = sum(file.size for file in files)
    if size > _MOST_BYTES:
        raise InputFileError(
            f"all --file have {size >> 20} MiB, and an image at most {_MOST_BYTES >> 20} MiB of"
            " own files",
            hint="send large data with the job: boincvm run --input",
        )
    return files


def _own_file(text: str) -> OwnFile:
    name, sign, target = text.rpartition(":")
    if not (sign and name) or "\0" in text:
        raise _no_destination(text)
    return own_file(Path(name), target)


def _no_destination(text: str) -> UsageError:
    return UsageError(
        f"found --file {text[:80]!r}, expected SRC:DST with an absolute path as DST",
        hint="like --file model.bin:/opt/model.bin, or --file tables:/opt/ for a directory",
    )


def own_file(source: Path, target: str) -> OwnFile:
    """Read a file of this host for `target`; with a slash at its end, the directory for it.

    Raises UsageError, InputFileError.
    """
    destination = PurePosixPath(target)
    if target.endswith("/"):
        destination /= source.name
    parts = destination.parts
    is_path = destination.is_absolute() and ".." not in parts and len(parts) > 1
    is_path = is_path and one_line(target) == target
    if not is_path or len(os.fsencode(target)) > 4000:
        raise _no_destination(f"{source}:{target}")
    if parts[1] in _NOT_IN_IMAGES:
        raise UsageError(
            f"found --file with {destination}, expected another directory than /{parts[1]}, which a"
            " machine makes anew",
            hint="/opt and /usr/local are for files of one's own",
        )
    if len(parts) == 2 and parts[1] in _DIRECTORIES and not source.is_dir():
        raise UsageError(
            f"found --file with {destination}, which is a directory",
            hint=f"to put it into that directory: --file {str(source)[:80]}:{destination}/",
        )
    return OwnFile(source, destination, *_digest(source))


def _digest(source: Path) -> tuple[str, int]:
    """Return the digest of a file, or of all in a directory, and its bytes."""
    whole, size = hashlib.sha256(), 0
    try:
        for path, inner in _walk(source):
            status = path.lstat()
            if path.is_symlink():
                kind, content = "link", os.fsencode(path.readlink())
            elif path.is_dir():
                kind, content = "directory", b""
            elif path.is_file():
                kind = "executable" if status.st_mode & 0o100 else "file"
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").digest()
                size += status.st_size
            else:
                raise InputFileError(
                    f"{str(path)!r} is neither a file nor a directory", hint="leave it out"
                )
            for part in (kind.encode(), os.fsencode(inner), content):
                whole.update(b"%d:%s" % (len(part), part))
    except OSError as error:
        raise host_error(f"{str(source)!r} cannot be read", error, InputFileError) from error
    return whole.hexdigest(), size


def _walk(source: Path) -> Iterator[tuple[Path, str]]:
    """Yield the file or directory, and all that is in it, with the path from it on.

    Raises OSError if a directory cannot be read.
    """
    source = source.resolve()
    yield source, ""
    found = []
    if source.is_dir():
        for folder, folders, files in os.walk(source, onerror=_raise):
            found += [Path(folder, name) for name in (*folders, *files)]
    for path in sorted(found):
        yield path, path.relative_to(source).as_posix()


def _raise(error: OSError) -> None:
    raise error


def add_own_files(tree: Tree, files: tuple[OwnFile, ...]) -> None:
    """Copy own files into an image; they belong to root. Raises ImageBuildError."""
    for file in files:
        if _digest(file.source)[0] != file.digest:
            raise ImageBuildError(
                f"{str(file.source)!r} has changed during the build", hint="build again"
            )
        for path, inner in _walk(file.source):
            name = str((file.destination / inner).relative_to("/"))
            _add(tree, name, path)


def _add(tree: Tree, name: str, path: Path) -> None:
    resolved = tree.path(name).relative_to(tree.directory).as_posix()
    goal = tree.followed(name)
    for found in (resolved, goal):
        if found.partition("/")[0] in _NOT_IN_IMAGES:
            raise ImageBuildError(
                f"/{name} leads to /{found} in the image, which a machine makes anew",
                hint="/opt and /usr/local are for files of one's own",
            )
    is_directory = tree.path(goal).is_dir()
    if path.is_dir() and not path.is_symlink():
        if not is_directory:
            tree.remove(name)  # a file, or a link that leads to no directory
            tree.add_directory(name)
        return
    if is_directory:
        raise ImageBuildError(
            f"/{name} is a directory in the image, and {str(path)!r} is none",
            hint="put it into that directory: --file SRC:DST/",
        )
    tree.remove(name)
    if path.is_symlink():
        tree.add_link(name, str(path.readlink()))
        return
    is_executable = path.stat().st_mode & 0o100 != 0
    tree.copy_file(name, path, Attributes(0o755 if is_executable else 0o644))


def add_python_packages(
    tree: Tree,
    requirements: tuple[str, ...],
    python: str,
    architecture: ImageArchitecture,
    directory: Path,
) -> tuple[str, ...]:
    """Add packages of PyPI with their dependencies; return their names and versions.

    `python`: the image's, like python3.11. Raises ImageBuildError.
    """
    fetch_python_packages(requirements, python, architecture, directory)
    return place_python_packages(tree, python, directory)


def fetch_python_packages(
    requirements: tuple[str, ...],
    python: str,
    architecture: ImageArchitecture,
    directory: Path,
    locked: tuple[Distribution, ...] = (),
) -> tuple[Distribution, ...]:
    """Fetch packages of PyPI with their dependencies into `directory`; return what was fetched.

    `locked`: exactly these are fetched. Raises ImageBuildError.
    """
    report = directory / "python-report.json"
    options: tuple[str, ...] = requirements
    if locked:
        pins = directory / "python-locked.txt"
        pins.write_text(
            "".join(f"{name}=={version} --hash=sha256:{sha}\n" for name, version, sha in locked)
        )
        options = ("--require-hashes", "--no-deps", "-r", str(pins))
    command = _pip(options, python, architecture, directory / _FETCHED)
    try:
        run_tool([*command, "--report", str(report)], directory=directory)
    except ToolError as error:
        raise _explained(error, is_locked=bool(locked)) from error
    return _distributions(report)


def _distributions(report: Path) -> tuple[Distribution, ...]:
    """Read pip's report (pip.pypa.io/en/stable/reference/installation-report)."""
    try:
        found = sorted(
            Distribution(
                text_of(item["metadata"]["name"]),
                text_of(item["metadata"]["version"]),
                text_of(item["download_info"]["archive_info"]["hashes"]["sha256"]),
            )
            for item in json.loads(report.read_text())["install"]
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ImageBuildError(
            f"pip does not report what it has fetched: {fault_of(error)}",
            hint="use a newer pip, at least 23: python3 -m pip install --upgrade pip",
        ) from error
    return tuple(found)


def place_python_packages(tree: Tree, python: str, directory: Path) -> tuple[str, ...]:
    """Add what was fetched into `directory`; return names and versions. Raises ImageBuildError."""
    target = directory / _FETCHED
    _normalize_programs(target / "bin")
    _correct_records(target)
    for path, inner in _walk(target):
        folder, _, rest = inner.partition("/")
        if folder == "bin":
            name = f"usr/local/bin/{rest}" if rest else ""
        else:
            name = f"{_PACKAGES.format(python=python)}/{inner}".rstrip("/")
        if name:
            _add(tree, name, path)
    found = (path.name.removesuffix(".dist-info") for path in target.glob("*.dist-info"))
    shown = sorted("==".join(name.rsplit("-", 1)) for name in found)
    shutil.rmtree(target)
    return tuple(shown)


def _pip(
    wanted: tuple[str, ...], python: str, architecture: ImageArchitecture, target: Path
) -> list[str]:
    version = python.removeprefix("python")
    machine = _PLATFORMS[architecture.name]
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in reversed(_GLIBC)]
    platforms += [f"manylinux2014_{machine}", f"linux_{machine}"]
    return [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--no-input", "--no-compile", "--only-binary=:all:", "--implementation", "cp"),
        *("--python-version", version, "--abi", f"cp{version.replace('.', '')}"),
        *("--abi", "abi3", "--abi", "none"),
        *(word for platform in platforms for word in ("--platform", platform)),
        *("--target", str(target), *wanted),
    ]


def _normalize_programs(directory: Path) -> None:
    """Let programs start with the image's Python, not with the one that pip ran on."""
    for path in directory.rglob("*"):
        if path.is_file():
            program = path.read_bytes()
            header = _HEADER.match(program)
            if header is not None:
                path.write_bytes(b"#!/usr/bin/python3\n" + program[header.end() :])


def _correct_records(target: Path) -> None:
    """Let the packages' lists of files tell where their programs are, and with what contents."""
    for record in target.glob("*.dist-info/RECORD"):
        with record.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        for row in rows:
            program = target / row[0].removeprefix("../../") if row else target
            if row and row[0].startswith("../../bin/") and program.is_file():
                digest = hashlib.sha256(program.read_bytes()).digest()
                text = base64.urlsafe_b64encode(digest).decode().rstrip("=")
                row[:] = [f"../{row[0]}", f"sha256={text}", str(program.stat().st_size)]
        with record.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)


def _explained(error: ToolError, *, is_locked: bool) -> ImageBuildError:
    log = error.log
    if "DO NOT MATCH THE HASHES" in log:
        return ImageBuildError(
            "a package of PyPI is not the one whose digest is in the lock file",
            hint="find out why, for PyPI never replaces a file; --update renews the lock file",
        )
    if "No module named pip" in log:
        return ImageBuildError(
            "--pip needs pip, which boincvm's Python does not have",
            hint="apt-get install python3-pip, or python3 -m ensurepip",
        )
    if _UNREACHABLE.search(log) is not None:
        return ImageBuildError(
            "PyPI could not be reached",
            hint="check the network, and pip's settings: python3 -m pip config list",
        )
    missing = re.search(r"No matching distribution found for (\S+)", log)
    if missing is not None:
        name = "".join(filter(str.isprintable, missing[1]))[:100]
        base = re.split("[^A-Za-z0-9]", name)[0].lower()
        if is_locked:
            return ImageBuildError(
                f"PyPI has no {name} any more, which is in the lock file",
                hint="renew the lock file: boincvm image build --update RECIPE",
            )
        return ImageBuildError(
            f"PyPI has no wheel of {name} for this image's Python",
            hint="is the name right, and is there such a version? Sources are not built: look for"
            f" Debian's package: apt-cache search python3-{base}",
        )
    lines = [line for line in log.splitlines() if line.startswith("ERROR")]
    why = "".join(filter(str.isprintable, lines[0] if lines else str(error)))[:200]
    return ImageBuildError(
        f"the packages of PyPI could not be fetched: {why}",
        hint="check the network, and pip's settings: python3 -m pip config list",
    )
