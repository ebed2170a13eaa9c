"""The real VirtualBox in a root of its own, from Debian's unstable suite.

    CACHE/virtualbox-root/VERSION-DIGEST/
        root/       the package, with the libraries that it needs
        bin/        VBoxManage and VBoxHeadless, which enter the root: for PATH
        stock/      the same with VBoxHeadless as the package has it, which needs the kernel module

The digest is that of the files here that make it.

No machine here has VirtualBox's kernel module. VirtualBox 7.2 can do without, in its interpreter,
if its front end says so when it starts (driverless.c) and the machine is set to that. All else is
the package's own. Nothing is installed on the host, and nothing needs root.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from boincvm.errors import ImageBuildError
from boincvm.host.own_files import make_directory
from boincvm.image.mirror import host_mirror
from boincvm.paths import cache_directory

_LOCATION = "virtualbox-root"
_HERE = Path(__file__).parent
_LIBRARIES = "/usr/lib/virtualbox"
_LIMIT = 300.0
_UNNEEDED = ("libgl1", "libgsoap", "libsdl", "libvncserver", "libx11", "libxt")
"""Libraries of front ends that no test uses; one of them brings 225 MB."""


class UnavailableError(Exception):
    """The archive cannot give the package; the text says why."""


class RealVirtualBox(NamedTuple):
    """Folders for PATH."""

    programs: Path
    stock: Path
    root: Path


def real_virtualbox() -> RealVirtualBox:
    """Return the newest that is in the cache, or fetch it. Raises UnavailableError."""
    location = cache_directory() / _LOCATION
    make_directory(location)
    with (location / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = sorted(location.glob(f"*-{_digest()}/bin"))
        if not found:
            try:
                _remove_others(location)
                found = [_make(location) / "bin"]
            except (OSError, subprocess.SubprocessError, ImageBuildError) as error:
                text = getattr(error, "stderr", None) or b""
                raise UnavailableError(
                    f"{error}: {text[-300:].decode(errors='replace')}"
                ) from error
    return RealVirtualBox(found[-1], found[-1].parent / "stock", found[-1].parent / "root")


def _make(location: Path) -> Path:
    new = location / "new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    apt = _Apt(new / "apt")
    version = apt.fetch()
    root = new / "root"
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for package in sorted(apt.archives.glob("*.deb")):
        _run(["dpkg-deb", "-x", str(package), str(root)])
    shutil.rmtree(new / "apt")
    launcher = f"{root}{_LIBRARIES}/VBoxDriverless"
    _run(["cc", "-O1", "-o", launcher, str(_HERE / "driverless.c"), "-ldl"])
    final = location / f"{version}-{_digest()}"
    _write_programs(new / "bin", final / "root", "VBoxDriverless")
    _write_programs(new / "stock", final / "root", "VBoxHeadless")
    new.rename(final)
    return final


def _remove_others(location: Path) -> None:
    """Remove roots that other versions of these files have made."""
    for old in location.glob("*/bin"):
        shutil.rmtree(old.parent)


def _digest() -> str:
    made_by = (Path(__file__), _HERE / "enter.sh", _HERE / "driverless.c")
    return hashlib.sha256(b"".join(path.read_bytes() for path in made_by)).hexdigest()[:12]


def _write_programs(directory: Path, root: Path, headless: str) -> None:
    """Write the programs for PATH.

    A machine gets its setting as soon as it is made: `createvm --name NAME ...`.
    """
    directory.mkdir()
    shutil.copy(_HERE / "enter.sh", directory / "enter.sh")
    user = "" if os.geteuid() == 0 else "--user --map-root-user "
    enter = f"unshare {user}--mount sh {root.parent / directory.name}/enter.sh {root} {_LIBRARIES}"
    manage = f"{enter}/VBoxManage"
    (directory / "VBoxManage").write_text(
        f'#!/bin/sh\n{manage} "$@" || exit\n[ "$1" != createvm ] ||\n'
        f'    exec {manage} modifyvm "$3" --vm-execution-engine interpreter\n'
    )
    (directory / "VBoxHeadless").write_text(f'#!/bin/sh\nexec {enter}/{headless} "$@"\n')
    for name in ("VBoxManage", "VBoxHeadless"):
        (directory / name).chmod(0o755)


class _Apt:
    """apt-get with settings, lists and a cache of its own."""

    def __init__(self, directory: Path) -> None:
        self.archives = directory / "cache" / "archives"
        for path in (self.archives / "partial", directory / "lists" / "partial"):
            path.mkdir(parents=True)
        (directory / "status").touch()
        (directory / "sources").write_text(f"deb {host_mirror()} sid main contrib\n")
        settings = {
            "Dir::State::lists": directory / "lists",
            "Dir::State::status": directory / "status",
            "Dir::Cache": directory / "cache",
            "Dir::Etc::sourcelist": directory / "sources",
            "Dir::Etc::sourceparts": "-",
            "Acquire::Check-Valid-Until": "false",
            "Acquire::Languages": "none",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "",
        }
        file = directory / "settings"
        file.write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
        self._environment = {**os.environ, "APT_CONFIG": str(file), "LC_ALL": "C"}

    def fetch(self) -> str:
        """Fetch the package and its libraries; return its version."""
        self._apt("apt-get", "-qq", "update")
        text = self._apt("apt-cache", "show", "--no-all-versions", "virtualbox")
        version = next(line.split()[1] for line in text.splitlines() if line.startswith("Version:"))
        needed = [
            name
            for line in self._apt("apt-cache", "depends", "virtualbox").splitlines()
            if line.strip().startswith("Depends:")
            and (name := line.split()[1]).startswith(("lib", "zlib"))
            and not name.startswith(_UNNEEDED)
        ]
        self._apt("apt-get", "-qq", "-y", "-d", "install", "base-files", *needed)
        self._apt("apt-get", "-qq", "download", "virtualbox")
        return version

    def _apt(self, *arguments: str) -> str:
        return _run(list(arguments), self._environment, self.archives)


def _run(
    command: list[str], environment: dict[str, str] | None = None, directory: Path | None = None
) -> str:
    done = subprocess.run(
        command,
        check=True,
        capture_output=True,
        env=environment,
        cwd=directory,
        timeout=_LIMIT,
    )
    return done.stdout.decode()
