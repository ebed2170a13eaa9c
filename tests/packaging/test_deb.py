"""The Debian package, installed in a root that has nothing but Debian's essential packages."""

import fcntl
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import cryptography
import pytest

from boincvm import __version__
from boincvm.host.own_files import make_directory
from boincvm.image.mirror import host_mirror
from boincvm.paths import cache_directory
from support import CHECKOUT

pytestmark = pytest.mark.timeout(600)
LIMIT = 400
# Another user is root in a namespace of its own.
AS_ROOT = () if os.geteuid() == 0 else ("unshare", "--user", "--map-root-user", "--map-auto")


def run(*command: str | Path, code: int = 0) -> str:
    """Run a command as root; return what it printed."""
    done = subprocess.run(
        [*AS_ROOT, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
        cwd=CHECKOUT,
        check=False,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of a root with Python; the first one is made by mmdebstrap and stays in the cache."""
    directory = cache_directory() / "bare-root"
    make_directory(directory)
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    cached = directory / suite
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not cached.exists():
            new = directory / "new"
            run("rm", "-rf", new)
            source = f"deb {host_mirror()} {suite} main"
            options = ("--quiet", "--mode=root", "--variant=essential", "--include=python3")
            run("mmdebstrap", *options, suite, new, source)
            new.rename(cached)
        run("cp", "-a", "--reflink=auto", cached, tmp_path / "root")
    return tmp_path / "root"


def test_it_is_installed_and_removed(root: Path, tmp_path: Path) -> None:
    subprocess.run(
        ["packaging/deb.sh", sys.executable, str(tmp_path)], cwd=CHECKOUT, timeout=LIMIT, check=True
    )
    (package,) = tmp_path.glob("boincvm_*.deb")
    needed = run("dpkg-deb", "--field", package, "Depends")
    assert "qemu-system-x86" in needed
    assert run("apt-get", "--simulate", "install", package).count("Inst boincvm ") == 1
    shutil.copy(package, root / "tmp/boincvm.deb")
    # The root has no QEMU, which is not what is tried here.
    run("chroot", root, "dpkg", "--force-depends", "--install", "/tmp/boincvm.deb")
    assert run("chroot", root, "boincvm", "--version") == f"boincvm {__version__}\n"
    assert run("chroot", root, "boincvm-wrapper", "--version") == f"boincvm-wrapper {__version__}\n"
    assert "usage: boincvm controller" in run("chroot", root, "boincvm", "controller", "--help")
    # What the controller imports, and how it starts a machine's process.
    python = ("chroot", root, "/usr/lib/boincvm/bin/python3", "-P")
    run(*python, "-c", "import boincvm.controller.serve.foreground")
    assert "usage: " in run(*python, "-m", "boincvm.shim.process", "--help")
    # What it can do without is Debian's.
    assert "python3-cryptography" in run("dpkg-deb", "--field", package, "Recommends")
    lacking = run("chroot", root, "boincvm", "image", "key", "/tmp/key.pem", code=224)
    assert "apt-get install python3-cryptography" in lacking
    here = Path(cryptography.__file__).parents[1]
    for name in ("cryptography", "cffi", "_cffi_backend*"):
        for path in here.glob(name):
            run("cp", "-r", path, root / "usr/lib/python3/dist-packages")
    assert "ed25519:" in run("chroot", root, "boincvm", "image", "key", "/tmp/key.pem")
    assert (root / "usr/lib/boincvm/lib").exists()
    run("chroot", root, "dpkg", "--purge", "boincvm")
    assert not list((root / "usr/bin").glob("boincvm*"))
    assert not [path for path in (root / "usr/lib/boincvm").rglob("*") if path.is_file()]
