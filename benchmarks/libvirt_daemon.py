"""A libvirt daemon of our own: a session's, with its files in a directory of its own."""

import os
import select
import socket
import subprocess
from collections.abc import Iterator
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

    @property
    def uri(self) -> str:
        return f"qemu+unix:///session?socket={self.directory}/run/libvirt/libvirt-sock"


def start(directory: Path) -> Daemon:
    """Start one, and return it once it listens.

    It runs in a user namespace in which it is not root, as a person's own daemon; so it is a
    session's even where the tests run as root, and sees nothing of the host's.
    """
    program = find_program("libvirtd") or "/usr/sbin/libvirtd"
    environment = {"PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin", "LC_ALL": "C"}
    for variable, name in {
        "HOME": "home",
        "XDG_RUNTIME_DIR": "run",
        "XDG_CONFIG_HOME": "c",
        "XDG_CACHE_HOME": "k",
        "XDG_DATA_HOME": "d",
    }.items():
        (directory / name).mkdir(mode=0o700, exist_ok=True)
        environment[variable] = str(directory / name)
    notify = directory / "run" / "notify"
    environment["NOTIFY_SOCKET"] = str(notify)
    user = ["--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready,
        (directory / "log").open("ab") as log,
    ):
        notify.unlink(missing_ok=True)
        ready.bind(str(notify))
        process = subprocess.Popen(
            ["unshare", *user, program] if user else [program],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        readable, _, _ = select.select([ready], [], [], LIMIT)
        assert readable, (directory / "log").read_text()
        assert b"READY=1" in ready.recv(4096)
    return Daemon(directory, process)


def stop(daemon: Daemon) -> None:
    """End it, and wait for its end."""
    daemon.process.terminate()
    daemon.process.wait(LIMIT)


@contextmanager
def running() -> Iterator[Daemon]:
    """Run one while the block runs, in a new directory."""
    # Its path must be short: libvirt makes long paths of sockets from it.
    with TemporaryDirectory(prefix="lv") as directory:
        daemon = start(Path(directory))
        try:
            yield daemon
        finally:
            stop(daemon)
