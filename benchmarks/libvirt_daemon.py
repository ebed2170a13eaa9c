"""A libvirt daemon of our own, a session's or a system's, with its files in one directory."""

import os
import select
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from boincvm.host.programs import find_program

LIMIT = 60.0


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


def start(directory: Path) -> Daemon:
    """Start a session's daemon, and return it once it listens.

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
    return Daemon(directory, _start(command, directory, environment))


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


def start_system(directory: Path) -> Daemon:
    """Start a system's daemon, as root, and return it once it listens to all users.

    In its mount namespace all of its directories are ours: it sees nothing of the host's daemon,
    nor that one of it.
    """
    directory.chmod(0o711)
    mounts = []
    for name, place in _HOST_DIRECTORIES.items():
        (directory / name).mkdir(mode=0o755, exist_ok=True)
        Path(place).mkdir(mode=0o755, parents=True, exist_ok=True)  # of Debian's package, mostly
        mounts += [str(directory / name), place]
    (directory / "etc" / "libvirtd.conf").write_text(_SETTINGS)
    (directory / "etc" / "qemu.conf").write_text(_QEMU_SETTINGS)
    for name, line in _ACCOUNTS.items():  # they come with a package that starts a host's daemon
        known = (Path("/etc") / name).read_text()
        (directory / name).write_text(known if f"{_USER}:" in known else known + line)
        mounts += [str(directory / name), f"/etc/{name}"]
    daemon = [_program(), "--pid-file", str(directory / "pid")]
    command = ["unshare", "--mount", "sh", "-c", _OWN_FILES, "sh", *mounts, "--", *daemon]
    return Daemon(directory, _start(command, directory, {}), is_system=True)


def _program() -> str:
    return find_program("libvirtd") or "/usr/sbin/libvirtd"


def _start(
    command: list[str], directory: Path, environment: dict[str, str]
) -> "subprocess.Popen[bytes]":
    """Start a daemon, and return its process once it listens."""
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
    return process


def stop(daemon: Daemon) -> None:
    """End it, and wait for its end."""
    daemon.process.terminate()
    daemon.process.wait(LIMIT)


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
