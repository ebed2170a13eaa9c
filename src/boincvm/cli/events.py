"""`boincvm events`: shows what happens to machines and commands."""

import argparse
import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from boincvm.cli import controller_options

if TYPE_CHECKING:
    from boincvm.client.client import Table

_EPILOG = """\
examples:
  boincvm events                       the last 50
  boincvm events --follow              and all new ones; Ctrl-C ends it
  boincvm events --json --after 1200   all since that one, one object per line
"""
_FREQUENT = ("vm_load", "command_output")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    controller_options.add_common(parser)
    parser.epilog = _EPILOG
    parser.add_argument("-f", "--follow", action="store_true", help="keep printing new ones")
    since = parser.add_mutually_exclusive_group()
    since.add_argument("--after", type=int, metavar="NUMBER", help="all since that number")
    since.add_argument(
        "-n", "--lines", type=int, default=50, metavar="N", help="the last N (default: 50)"
    )
    parser.add_argument(
        "--all", action="store_true", help="include the frequent ones: load and output"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the events. Raises BoincvmError."""
    client = controller_options.client_of(arguments)
    after = arguments.after or 0
    try:
        if arguments.after is None:
            last: deque[Table] = deque(maxlen=max(arguments.lines, 0))
            for event in client.events():
                after = int(str(event["number"]))
                if _matches(event, arguments):
                    last.append(event)
            _show(last, arguments)
        if arguments.after is not None or arguments.follow:
            _show(client.events(after, follow=arguments.follow), arguments)
    except KeyboardInterrupt:
        if not arguments.follow:
            raise
    return 0


def _matches(event: "Table", arguments: argparse.Namespace) -> bool:
    return arguments.all or event.get("kind") not in _FREQUENT


def _show(events: "Iterable[Table]", arguments: argparse.Namespace) -> None:
    for event in events:
        if not _matches(event, arguments):
            continue
        if arguments.json:
            controller_options.print_line(event)
        else:
            print(_line(event), flush=True)


def _line(event: "Table") -> str:
    at = event.get("at")
    moment = time.localtime(at if isinstance(at, int | float) else 0)
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", moment)
    who = event.get("vm") or "-"
    return f"{stamp}  {event['number']:>6}  {who}  {event.get('kind')}: {event.get('text')}"
