"""`boincvm guest`: makes this host itself a guest on the bus of a controller elsewhere."""

import argparse
from pathlib import Path

from boincvm.cli import broker
from boincvm.cli.create import label_of
from boincvm.errors import UsageError
from boincvm.host.users import is_root
from boincvm.standard_error import write_line

_EPILOG = """\
Whoever controls the bus RUNS WHAT HE LIKES ON THIS HOST, AS THE USER THAT STARTS THIS, and reads
and writes what that user may: nothing stands between, as a machine would. Have a user of its own
for it. As root it does not begin without --allow-root.

It runs in the foreground; Ctrl-C ends it, and all that it has started. It connects again by
itself. On the controller's host: boincvm ls, exec, cp, shell, ping.

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
        "--label", action="append", default=[], metavar="NAME=VALUE", help="to address it by"
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
            "as root, whoever controls the bus could do anything on this host",
            hint="start it as a user of its own, or use --allow-root on a machine that serves"
            " nothing else",
        )
    broker_address = broker.broker_of(arguments)
    if broker_address is None:
        raise UsageError("--broker is missing", hint="boincvm guest --help shows examples")
    labels = dict(label_of(text) for text in arguments.label)
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
