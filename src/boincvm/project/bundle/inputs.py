"""What a folder is made of: found in the cache by digest, or fetched and checked.

CACHE/bundle/inputs/SHA256    a package of Debian or of PyPI, as it was downloaded
"""

import hashlib
import shutil
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from boincvm.errors import ImageBuildError
from boincvm.host.own_files import make_directory
from boincvm.image.mirror import host_mirror
from boincvm.image.tools import ToolError, run_tool

LOCK = Path(__file__).with_name("inputs.toml")
QEMU_LOCK = Path(__file__).with_name("qemu.toml")
_COMPILERS_ARCHITECTURE = "amd64"
_APT_HELPER = "/usr/lib/apt/apt-helper"


@dataclass(frozen=True, slots=True)
class DebianPackage:
    """A package of Debian's archive."""

    source: str
    """The name of its source package."""
    path: str
    """Of the file, beneath a mirror."""
    size: int
    """Bytes."""
    sha256: str

    @property
    def file_name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def name(self) -> str:
        return self.file_name.partition("_")[0]

    @property
    def version(self) -> str:
        return self.file_name.split("_")[1]


@dataclass(frozen=True, slots=True)
class PyPIPackage:
    """A package of PyPI."""

    requirement: str
    """NAME==VERSION."""
    size: int
    """Bytes."""
    sha256: str

    @property
    def name(self) -> str:
        return self.requirement.partition("==")[0]


@dataclass(frozen=True, slots=True)
class Inputs:
    """What inputs.toml names for one platform."""

    debian: tuple[DebianPackage, ...]
    """Debian's Python with what it needs; empty for Windows."""
    compiler: tuple[DebianPackage, ...]
    """The same for x86_64, whose Python compiles the modules of every platform."""
    pypi: tuple[PyPIPackage, ...]
    setuptools: PyPIPackage
    """What pip asks an archive of sources with; no part of a folder."""

    def python_package(self, name: str) -> PyPIPackage:
        """Return the package of PyPI with this name."""
        return next(package for package in self.pypi if package.name == name)


def pinned_inputs(architecture: str = "") -> Inputs:
    """Return what inputs.toml pins for Linux on Debian's `architecture`; for Windows it is ""."""
    with LOCK.open("rb") as file:
        lock = tomllib.load(file)
    return Inputs(
        _packages(lock["debian"], architecture) if architecture else (),
        _packages(lock["debian"], _COMPILERS_ARCHITECTURE),
        tuple(PyPIPackage(**entry) for entry in lock["pypi"]),
        PyPIPackage(**lock["setuptools"]),
    )


def _packages(
    table: Mapping[str, list[dict[str, Any]]], *architectures: str
) -> tuple[DebianPackage, ...]:
    return tuple(DebianPackage(**entry) for name in architectures for entry in table[name])


def pinned_qemu(architecture: str) -> tuple[DebianPackage, ...]:
    """Return the packages that qemu.toml pins for Linux on Debian's `architecture`.

    Those that it shares with inputs.toml are among them.
    """
    with QEMU_LOCK.open("rb") as file:
        lock = tomllib.load(file)
    inputs = pinned_inputs(architecture).debian
    shared = (package for package in inputs if package.name in lock["shared"])
    return (*_packages(lock["debian"], architecture, "all"), *shared)


def pinned_windows_qemu() -> PyPIPackage:
    """Return the package with QEMU for Windows."""
    with QEMU_LOCK.open("rb") as file:
        return PyPIPackage(**tomllib.load(file)["windows"])


def check_pip() -> None:
    """Check that this Python has pip, which fetches PyPI's packages. Raises ImageBuildError."""
    if find_spec("pip") is None:
        raise ImageBuildError(
            f"fetching PyPI's packages needs pip, which {sys.executable} lacks",
            hint=f"{sys.executable} -m ensurepip, or on Debian: apt-get install python3-pip",
        )


class InputCache:
    """The inputs that were fetched. To be used under a lock."""

    def __init__(self, directory: Path, mirror: str | None) -> None:
        """`directory`: the cache's. `mirror`: of Debian's archive; default: the one of apt."""
        self._directory = directory
        self._mirror = mirror
        make_directory(directory)

    def missing(self, packages: Iterable[DebianPackage | PyPIPackage]) -> int:
        """Return the bytes of those packages that are not there yet."""
        absent = (one for one in packages if not (self._directory / one.sha256).is_file())
        return sum(package.size for package in absent)

    def debian(self, package: DebianPackage) -> Path:
        """Return the file of a package. Raises ImageBuildError."""
        path = self._directory / package.sha256
        if not _is(path, package.sha256):
            if not Path(_APT_HELPER).exists():
                raise ImageBuildError(
                    "fetching Debian's packages needs apt, which this computer lacks",
                    hint="make the folder on Debian or on a system that derives from it",
                )
            self._mirror = self._mirror or host_mirror()
            new = self._directory / "new"
            new.unlink(missing_ok=True)
            try:
                run_tool(
                    [_APT_HELPER, "-oAPT::Sandbox::User=", "-oAcquire::Retries=3", "download-file",
                     f"{self._mirror}/{package.path}", new, f"SHA256:{package.sha256}"]
                )  # fmt: skip
            except ToolError as error:
                raise ImageBuildError(
                    f"{package.file_name} could not be fetched: {error.message}",
                    hint="check the network, or give a mirror that has Debian 12: --mirror URL",
                ) from error
            self._keep(new, path, package.sha256, package.file_name)
        return path

    def wheel(self, package: PyPIPackage, platform: str = "") -> Path:
        """Return the wheel of a package, for another platform if one is given.

        Raises ImageBuildError.
        """
        path = self._directory / package.sha256
        if not _is(path, package.sha256):
            options = [f"--platform={platform}"] if platform else []
            self._download(package, path, ["--only-binary=:all:", *options], {})
        return path

    def source(self, package: PyPIPackage, setuptools: PyPIPackage) -> Path:
        """Return the archive with the sources of a package. Raises ImageBuildError.

        pip runs the setup.py in it: after the check of its digest, and with this `setuptools`.
        """
        path = self._directory / package.sha256
        if not _is(path, package.sha256):
            with tempfile.TemporaryDirectory() as unpacked:
                with zipfile.ZipFile(self.wheel(setuptools)) as wheel:
                    wheel.extractall(unpacked)
                form = ["--no-binary=:all:", "--no-build-isolation"]
                self._download(package, path, form, {"PYTHONPATH": unpacked})
        return path

    def _download(
        self,
        package: PyPIPackage,
        path: Path,
        options: list[str],
        environment: Mapping[str, str],
    ) -> None:
        new = self._directory / "new-pypi"
        check_pip()
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        wanted = new / "requirements.txt"
        wanted.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
        try:
            run_tool(
                [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check",
                 "--no-deps", "--require-hashes", *options, "-d", new, "-r", wanted],
                environment=environment,
            )  # fmt: skip
        except ToolError as error:
            raise ImageBuildError(
                f"pip could not fetch {package.requirement}: {error.message}",
                hint="check the network and pip's settings",
            ) from error
        wanted.unlink()
        (file,) = new.iterdir()
        self._keep(file, path, package.sha256, package.requirement)
        shutil.rmtree(new)

    def _keep(self, new: Path, path: Path, sha256: str, name: str) -> None:
        if not _is(new, sha256):
            raise ImageBuildError(
                f"{name} is not the one that was pinned: its digest is another one",
                hint="try again; if it happens again, what serves it has altered it",
            )
        new.replace(path)


def _is(path: Path, sha256: str) -> bool:
    """Tell whether `path` is the file with this digest."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256
