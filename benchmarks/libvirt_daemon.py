"""A libvirt daemon of our own, a session's or a system's, with its files in one directory."""

import os
import select
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks import reaper
from benchmarks.environment import PYTHON
from boincvm.host.atomic_files import write_atomically
from boincvm.host.own_files import make_directory
from boincvm.host.programs import find_program
from boincvm.paths import cache_directory

LIMIT = 60.0
_KVM = Path("/dev/kvm")


class Daemon(NamedTuple):
    """A daemon that runs."""

    directory: Path
    process: "subprocess.Popen[bytes]"
    is_system: bool = False

    @property
    def uri(self) -> str:
        if self.is_system:
            return f"qemu+unix:///system?socket={self.directory}/run/libvirt-sock"
        return f"qemu+unix:///session?socket={self.directory}/run/libvirt/libvirt-sock"


def start(directory: Path, *, has_reaper: bool = False) -> Daemon:
    """Start a session's daemon, and return it once it listens.

    With `has_reaper` it runs beneath a process that reaps its machines (reaper.py), and `process`
    is that one.

    It runs in a user namespace in which it is not root, as a person's own daemon; so it is a
    session's even where the tests run as root, and sees nothing of the host's.
    """
    environment = {}
    for variable, name in {
        "HOME": "home",
        "XDG_RUNTIME_DIR": "run",
        "XDG_CONFIG_HOME": "c",
        "XDG_CACHE_HOME": "k",
        "XDG_DATA_HOME": "d",
    }.items():
        (directory / name).mkdir(mode=0o700, exist_ok=True)
        environment[variable] = str(directory / name)
    user = ["--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
    command = ["unshare", *user, _program()] if user else [_program()]
    if has_reaper:
        command = [PYTHON, reaper.__file__, *command]
    return _start(command, directory, environment)


_HOST_DIRECTORIES = {
    "etc": "/etc/libvirt",
    "run": "/run/libvirt",
    "lib": "/var/lib/libvirt",
    "cache": "/var/cache/libvirt",
    "log": "/var/log/libvirt",
}
"""Where a system's daemon has its files: compiled into it."""
_OWN_FILES = """
mount --make-rprivate / || exit
while [ "$1" != -- ]; do mount --bind "$1" "$2" || exit; shift 2; done
shift; exec "$@"
"""
_SETTINGS = """
auth_unix_rw = "none"
unix_sock_rw_perms = "0777"
"""
_QEMU_SETTINGS = """
stdio_handler = "file"
cgroup_controllers = []
"""
"""Neither another daemon, virtlogd, nor control groups, which would stay."""
_USER = "libvirt-qemu"
"""The user that Debian's libvirt looks for, whether any machine runs as it or not."""
_ACCOUNTS = {
    "passwd": f"{_USER}:x:64055:64055::/:/usr/sbin/nologin\n",
    "group": f"{_USER}:x:64055:\n",
}


def start_system(directory: Path, *, hides_kvm: bool = False) -> Daemon:
    """Start a system's daemon, as root, and return it once it listens to all users.

    In its mount namespace all of its directories are ours: it sees nothing of the host's daemon,
    nor that one of it. With `hides_kvm` it has no KVM either: where it may open /dev/kvm, and QEMU
    cannot use it, libvirt examines QEMU again for each machine, which takes seconds.
    """
    directory.chmod(0o711)
    mounts = []
    for name, location in _HOST_DIRECTORIES.items():
        (directory / name).mkdir(mode=0o755, exist_ok=True)
        Path(location).mkdir(mode=0o755, parents=True, exist_ok=True)  # of Debian's package, mostly
        mounts += [str(directory / name), location]
    (directory / "etc" / "libvirtd.conf").write_text(_SETTINGS)
    settings = _QEMU_SETTINGS
    for name, line in _ACCOUNTS.items():  # they come with a package that starts a host's daemon
        known = (Path("/etc") / name).read_text()
        (directory / name).write_text(known if f"{_USER}:" in known else known + line)
        mounts += [str(directory / name), f"/etc/{name}"]
    if hides_kvm and _KVM.exists():
        (directory / "no-kvm").touch(mode=0o000)
        mounts += [str(directory / "no-kvm"), str(_KVM)]
        settings += "namespaces = []\n"  # a /dev of its own for each QEMU, which moves all mounts
    (directory / "etc" / "qemu.conf").write_text(settings)
    daemon = [_program(), "--pid-file", str(directory / "pid")]
    command = ["unshare", "--mount", "sh", "-c", _OWN_FILES, "sh", *mounts, "--", *daemon]
    return _start(command, directory, {}, is_system=True)


def _program() -> str:
    return find_program("libvirtd") or "/usr/sbin/libvirtd"


def _start(
    command: list[str], directory: Path, environment: dict[str, str], *, is_system: bool = False
) -> Daemon:
    """Start a daemon, and return it once it listens."""
    _give_capabilities(directory, is_system=is_system)
    notify = directory / "notify"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready,
        (directory / "output").open("ab") as log,
    ):
        notify.unlink(missing_ok=True)
        ready.bind(str(notify))
        process = subprocess.Popen(
            command,
            env={
                "PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin",
                "LC_ALL": "C",
                "NOTIFY_SOCKET": str(notify),
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        readable, _, _ = select.select([ready], [], [], LIMIT)
        assert readable, (directory / "output").read_text()
        assert b"READY=1" in ready.recv(4096)
    return Daemon(directory, process, is_system)


def stop(daemon: Daemon) -> None:
    """End it, and wait for its end."""
    daemon.process.terminate()
    daemon.process.wait(LIMIT)
    _keep_capabilities(daemon)


# libvirt starts each QEMU of the host several times to see what it can do. That takes some ten
# seconds, so a daemon gets what the one before has found out. It examines a QEMU again if that, the
# kernel or libvirt itself has changed since.


def _give_capabilities(directory: Path, *, is_system: bool) -> None:
    stored = _kept_capabilities(is_system=is_system)
    if stored.is_dir():
        shutil.copytree(stored, _capabilities(directory, is_system=is_system), dirs_exist_ok=True)


def _keep_capabilities(daemon: Daemon) -> None:
    stored = _kept_capabilities(is_system=daemon.is_system)
    make_directory(stored)
    for path in _capabilities(daemon.directory, is_system=daemon.is_system).glob("*.xml"):
        write_atomically(stored / path.name, path.read_bytes())


def _capabilities(directory: Path, *, is_system: bool) -> Path:
    cache = "cache/qemu" if is_system else "k/libvirt/qemu/cache"
    return directory / cache / "capabilities"


def _kept_capabilities(*, is_system: bool) -> Path:
    return cache_directory() / "libvirt-capabilities" / ("system" if is_system else "session")


@contextmanager
def running(start_daemon: Callable[[Path], Daemon] = start) -> Iterator[Daemon]:
    """Run one while the block runs, in a new directory."""
    # Its path must be short: libvirt makes long paths of sockets from it.
    with TemporaryDirectory(prefix="lv") as directory:
        daemon = start_daemon(Path(directory))
        try:
            yield daemon
        finally:
            stop(daemon)
