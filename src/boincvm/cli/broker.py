"""Options for a broker that runs elsewhere."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from boincvm.errors import UsageError

if TYPE_CHECKING:
    from boincvm.bus.broker_address import BrokerAddress

_PORT = 61613
_KINDS = {"rabbitmq": "rabbitmq", "activemq": "activemq", "stomp": "embedded"}


def add_arguments(options: argparse._ActionsContainer, summary: str) -> None:
    """Add the options; `summary` is the help text of --broker."""
    options.add_argument("--broker", metavar="URL", help=summary)
    options.add_argument("--passcode-file", type=Path, metavar="FILE", help="for that broker")
    options.add_argument(
        "--broker-ca", metavar="FILE", default="", help="use TLS, and trust these certificates"
    )


def broker_of(arguments: argparse.Namespace) -> "BrokerAddress | None":
    """Return the broker that was named, or None. Raises UsageError."""
    from boincvm.bus.broker_address import BrokerAddress

    if arguments.broker is None:
        return None
    expected = "expected one like rabbitmq://LOGIN@HOST:PORT, activemq:// or stomp://"
    try:
        parts = urlsplit(arguments.broker)
        host, port = parts.hostname, parts.port or _PORT
    except ValueError as error:
        raise UsageError(f"found the broker {arguments.broker[:80]!r}, {expected}") from error
    if parts.scheme not in _KINDS or not host or not parts.username or parts.password:
        raise UsageError(
            f"found the broker {arguments.broker[:80]!r}, {expected}",
            hint="the passcode is read from --passcode-file: other users can see a command line",
        )
    if arguments.passcode_file is None:
        raise UsageError("--broker needs --passcode-file")
    try:
        passcode = arguments.passcode_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the passcode cannot be read: {error}") from error
    kind, authority = _KINDS[parts.scheme], arguments.broker_ca
    # Absolute, because shims read it too, and run in other directories.
    authority = str(Path(authority).absolute()) if authority else ""
    return BrokerAddress(
        parts.username, passcode, host=host, port=port, authority=authority, dialect=kind
    )
