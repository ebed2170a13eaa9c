"""`boincvm guest`: makes this host itself a guest on the bus of a controller elsewhere."""

import argparse
from pathlib import Path

from boincvm.cli import broker
from boincvm.cli.create import labels_of
from boincvm.errors import UsageError
from boincvm.host.users import is_root
from boincvm.standard_error import write_line

_EPILOG = """\
Anyone who controls the bus CAN RUN ANYTHING ON THIS HOST AS THE USER WHO STARTS THIS, and can
read and write whatever that user can: no virtual machine separates them. Use a dedicated user.
It refuses to run as root without --allow-root.

It runs in the foreground; Ctrl-C stops it and everything that it has started. It reconnects
automatically. On the controller's host: boincvm ls, exec, cp, shell, ping.

examples:
  boincvm invite lab >passcode         on the controller's host; copy the file passcode here, and:
  boincvm guest --broker stomp://lab@big:61613 --passcode-file passcode --broker-ca server.pem
  boincvm guest --broker stomp://lab@big:61613 --passcode-file passcode --broker-ca server.pem \\
      --id lab.2 --label site=cern --directory /data/work
  boincvm guest --broker rabbitmq://boincvm@big:61613 --passcode-file passcode
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    broker.add_arguments(parser, "where the bus is, like stomp://LOGIN@HOST:PORT")
    parser.add_argument(
        "--id", help="its name on the bus (default: the name it was invited by, or the host's)"
    )
    parser.add_argument(
        "--label", action="append", default=[], metavar="NAME=VALUE", help="for selectors to match"
    )
    parser.add_argument(
        "--directory",
        type=Path,
        metavar="DIRECTORY",
        help="where commands run and files go (default: a new directory in boincvm's data"
        " directory)",
    )
    parser.add_argument("--allow-root", action="store_true", help="allow running as root")


def run(arguments: argparse.Namespace) -> int:
    """Run as a guest until a signal ends it. Raises BoincvmError."""
    if is_root() and not arguments.allow_root:
        raise UsageError(
            "as root, anyone who controls the bus could do anything on this host",
            hint="start it as a dedicated user, or use --allow-root on a host that serves"
            " nothing else",
        )
    broker_address = broker.broker_of(arguments)
    if broker_address is None:
        raise UsageError("--broker is missing", hint="boincvm guest --help shows examples")
    labels = labels_of(arguments.label)
    import asyncio

    from boincvm.node.host_node import guest_of_this_host, run_guest

    guest = guest_of_this_host(broker_address, arguments.id, labels)
    if broker_address.can_be_read:
        words = (
            "warning: without --broker-ca anyone who listens on the network learns the passcode,"
        )
        write_line(f"{words} and a man in the middle can act as this user")
    asyncio.run(run_guest(broker_address, guest, arguments.directory))
    return 0
