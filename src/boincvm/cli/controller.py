"""`boincvm controller`: controls the machines of this host until it is interrupted."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.cli import broker
from boincvm.errors import UsageError

if TYPE_CHECKING:
    from boincvm.controller.hosts.bus_connection import Listen
    from boincvm.controller.machines.controller_node import RemoteRights
    from boincvm.controller.serve.server import ListenAddress

_EPILOG = """\
It runs in the foreground; Ctrl-C stops it. Machines keep running without it, and the next
controller finds them again.

examples:
  boincvm controller
  boincvm controller --listen 127.0.0.1:8080      and the web page, for anyone with the token
  boincvm controller --bus 0.0.0.0:61613 --bus-certificate cert.pem --bus-key key.pem
  boincvm controller --broker stomp://lab@big:61613 --passcode-file passcode
                             joins another controller that has invited this host: boincvm invite
  boincvm controller --broker rabbitmq://boincvm@localhost:61613 --passcode-file passcode
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    web = parser.add_argument_group(
        "serve HTTP over TCP (a UNIX socket for this user always exists)"
    )
    web.add_argument("--listen", metavar="HOST:PORT", help="port 0 chooses a free one")
    web.add_argument("--tls-certificate", metavar="FILE", default="")
    web.add_argument("--tls-key", metavar="FILE", default="")
    web.add_argument(
        "--client-ca",
        metavar="FILE",
        default="",
        help="clients with a certificate of this authority may connect",
    )
    web.add_argument(
        "--any-host", action="store_true", help="accept requests addressed to any host name"
    )
    web.add_argument(
        "--share",
        type=_directory,
        metavar="DIRECTORY",
        help="XML-RPC over TCP may name files in it",
    )
    bus = parser.add_argument_group("the bus")
    bus.add_argument(
        "--bus", metavar="HOST:PORT", help="where guests of other hosts connect to the bus"
    )
    bus.add_argument("--bus-certificate", metavar="FILE", default="")
    bus.add_argument("--bus-key", metavar="FILE", default="")
    broker.add_arguments(bus, "use a broker that runs elsewhere")
    bus.add_argument(
        "--no-remote-create",
        action="store_true",
        help="let the controller that has invited this host create and remove no machines here",
    )
    bus.add_argument(
        "--remote-network",
        action="store_true",
        help="let it create machines that reach the network (default: only such as do not)",
    )


def _directory(text: str) -> Path:
    path = Path(text).absolute()
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text[:200]!r} is not a directory")
    return path


def run(arguments: argparse.Namespace) -> int:
    """Run the controller until a signal ends it. Raises BoincvmError."""
    from boincvm.controller.serve import check_extra

    check_extra()
    import asyncio

    from boincvm.controller.serve.foreground import run_in_foreground

    rights = _rights(arguments)
    asyncio.run(
        run_in_foreground(
            _listen_address(arguments),
            _listen(arguments),
            broker.broker_of(arguments),
            any_host=arguments.any_host,
            shared=arguments.share,
            rights=rights,
        )
    )
    return 0


def _rights(arguments: argparse.Namespace) -> "RemoteRights":
    from boincvm.controller.machines.controller_node import RemoteRights

    if arguments.broker is None and (arguments.no_remote_create or arguments.remote_network):
        raise UsageError(
            "--no-remote-create and --remote-network are for a host that has been invited, and so"
            " need --broker"
        )
    if arguments.no_remote_create and arguments.remote_network:
        raise UsageError("with --no-remote-create nothing is created that --remote-network is for")
    return RemoteRights(create=not arguments.no_remote_create, network=arguments.remote_network)


def _listen_address(arguments: argparse.Namespace) -> "ListenAddress | None":
    from boincvm.controller.serve.server import ListenAddress

    # Without a certificate of its own there is no TLS, so no client is asked for one either.
    if (arguments.tls_key or arguments.client_ca) and not arguments.tls_certificate:
        raise UsageError("--tls-key and --client-ca need --tls-certificate")
    if arguments.listen is None:
        if arguments.tls_certificate:
            raise UsageError("--tls-certificate needs --listen")
        if arguments.share:
            raise UsageError(
                "--share needs --listen: over this user's socket all files may be named"
            )
        return None
    host, port = _host_and_port(arguments.listen)
    files = (arguments.tls_certificate, arguments.tls_key, arguments.client_ca)
    return ListenAddress(None, host, port, *files)


def _listen(arguments: argparse.Namespace) -> "Listen | None":
    from boincvm.controller.hosts.bus_connection import Listen

    if arguments.bus_key and not arguments.bus_certificate:
        raise UsageError("--bus-key needs --bus-certificate")
    if arguments.bus is None:
        if arguments.bus_certificate:
            raise UsageError("--bus-certificate needs --bus")
        return None
    if arguments.broker is not None:
        raise UsageError("--bus is for our own broker, which --broker replaces")
    host, port = _host_and_port(arguments.bus)
    return Listen(host, port, arguments.bus_certificate, arguments.bus_key)


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"found {text[:80]!r}, expected HOST:PORT, like 127.0.0.1:8080")
    return host.strip("[]"), int(port)
