"""Newer QEMUs than this host's, from later releases of Debian, each in a root of its own.

    CACHE/qemu-root/SUITE-DIGEST/
        root/    the package and the libraries that it needs, unpacked, without what no test uses
        bin/     its programs, for PATH

The digest is that of this file. The programs are run by the root's own loader: nothing is installed
on the host, and nothing needs root.
"""

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

from boincvm.errors import ImageBuildError
from boincvm.host.own_files import make_directory
from boincvm.image.mirror import host_mirror
from boincvm.image.packages import fetch_packages
from boincvm.image.progress import Progress
from boincvm.paths import cache_directory

SUITES = ("trixie", "sid")
"""QEMU 10.0, and the newest one that Debian has."""
PROGRAM = "qemu-system-x86_64"
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_WANTED = (
    f"./usr/bin/{PROGRAM}",
    "./usr/lib64/*",
    f"./{_LIBRARIES}/*.so*",
    f"./{_LIBRARIES}/qemu/accel-*",
    "./usr/share/qemu/*.bin",
    "./usr/share/seabios/bios-256k.bin",
    "./usr/share/seabios/vgabios-stdvga.bin",
)
"""What is unpacked, as tar matches names."""
_LIMIT = 120.0


class UnavailableError(Exception):
    """The archive cannot give the package; the text says why."""


def newer_qemu(suite: str) -> Path:
    """Return the folder of its programs, from the cache or fetched. Raises UnavailableError."""
    location = cache_directory() / "qemu-root"
    make_directory(location)
    with (location / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        final = location / f"{suite}-{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]}"
        if not final.exists():
            for old in location.glob(f"{suite}-*"):
                shutil.rmtree(old)
            try:
                _make(suite, location / "new", final)
            except (OSError, subprocess.SubprocessError, ImageBuildError) as error:
                raise UnavailableError(str(error)) from error
    return final / "bin"


def _make(suite: str, new: Path, final: Path) -> None:
    shutil.rmtree(new, ignore_errors=True)
    root = new / "root"
    (new / "temporary").mkdir(parents=True)
    root.mkdir()
    # A mirror may be behind by more than sid's lists are valid.
    source = f"deb [check-valid-until=no] {host_mirror()} {suite} main"
    temporary = new / "temporary"
    for file in fetch_packages(("qemu-system-x86",), suite, source, temporary, Progress(None)):
        _unpack(file, root)
    shutil.rmtree(temporary)
    (new / "bin").mkdir()
    program = new / "bin" / PROGRAM
    seen = final / "root"
    program.write_text(
        "#!/bin/sh\n"
        f"export QEMU_MODULE_DIR='{seen}/{_LIBRARIES}/qemu'\n"
        f"exec '{seen}/usr/lib64/ld-linux-x86-64.so.2' --library-path '{seen}/{_LIBRARIES}'"
        f" '{seen}/usr/bin/{PROGRAM}' -L '{seen}/usr/share/qemu' -L '{seen}/usr/share/seabios'"
        ' "$@"\n'
    )
    program.chmod(0o755)
    new.rename(final)


def _unpack(package: Path, root: Path) -> None:
    """Unpack the files of a package that are wanted."""
    content = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", package], check=True, capture_output=True, timeout=_LIMIT
    ).stdout
    options = ["--extract", "--wildcards", "--no-wildcards-match-slash", "--no-same-owner"]
    done = subprocess.run(
        ["tar", *options, "--directory", root, *_WANTED],
        input=content,
        check=False,
        capture_output=True,
        timeout=_LIMIT,
    )
    text = done.stderr.decode(errors="replace")
    if any("Not found in archive" not in line for line in text.splitlines()[:-1]):
        raise UnavailableError(f"{package.name} cannot be unpacked: {text}")
