"""A real RabbitMQ for tests and benchmarks, with its own directory, ports and name server."""

import os
import signal
import subprocess
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread, Timer

from benchmarks.free_ports import free_ports

LOGIN, PASSCODE = "host", "right"
START_LIMIT = 90.0
SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_CONFIGURATION = """
listeners.tcp = none
{listener}
default_user = {login}
default_pass = {passcode}
log.console = true
log.console.level = warning
log.file = false
"""
_PLAIN = "stomp.listeners.tcp.1 = 127.0.0.1:{port}"
_TLS = """
stomp.listeners.tcp = none
stomp.listeners.ssl.1 = 127.0.0.1:{port}
ssl_options.certfile = {certificate}
ssl_options.keyfile = {key}
"""


@contextmanager
def rabbitmq(directory: Path, tls: tuple[Path, Path] | None = None) -> Iterator[tuple[int, int]]:
    """Run RabbitMQ within the block; yield its STOMP port and process id once it is ready.

    tls: the files of a certificate and its key, if it is to accept TLS only.
    """
    port, names_port, nodes_port = free_ports(3)
    certificate, key = tls or ("", "")
    listener = (_TLS if tls else _PLAIN).format(port=port, certificate=certificate, key=key)
    (directory / "rabbitmq.conf").write_text(
        _CONFIGURATION.format(listener=listener, login=LOGIN, passcode=PASSCODE)
    )
    (directory / "plugins").write_text("[rabbitmq_stomp].\n")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "ERL_EPMD_PORT": str(names_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"boincvm{port}@localhost",
        "RABBITMQ_MNESIA_BASE": str(directory / "data"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_PID_FILE": str(directory / "pid"),
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
        "RABBITMQ_DIST_PORT": str(nodes_port),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }
    # Started by us, because one that RabbitMQ starts would outlive it.
    names = subprocess.Popen(
        ["epmd", "-port", str(names_port), "-address", "127.0.0.1"], env=environment
    )
    server = subprocess.Popen(
        [SERVER], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    alarm = Timer(START_LIMIT, lambda: os.killpg(server.pid, signal.SIGKILL))
    alarm.start()
    reader = reader_of(server)
    try:
        assert server.stdout is not None
        output = ""
        for line in server.stdout:
            output += line
            if "completed with" in line:
                break
        else:
            raise RuntimeError(f"RabbitMQ did not start: {output[-2000:]}")
        alarm.cancel()
        reader.start()
        yield port, _erlang(server.pid)
    finally:
        alarm.cancel()
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait(START_LIMIT)
        if reader.is_alive():
            reader.join(START_LIMIT)
        if server.stdout is not None:
            server.stdout.close()
        names.kill()
        names.wait(START_LIMIT)


def reader_of(server: subprocess.Popen[str]) -> Thread:
    """Return a thread that drops what a server prints, which stands still while a pipe is full."""
    return Thread(target=deque, args=(server.stdout, 0), daemon=True)


def _erlang(group: int) -> int:
    """Find the process of the session `group` that is the server itself."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            name = (process / "comm").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == group and name.startswith("beam"):
            return int(process.name)
    raise RuntimeError("there is no Erlang in that session")
