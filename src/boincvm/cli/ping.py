"""`boincvm ping`: whether guests answer, and how fast."""

import argparse

from boincvm.cli import asking
from boincvm.cli.parser import option
from boincvm.exit_codes import ExitCode
from boincvm.job import values

_EPILOG = """\
examples:
  boincvm ping all
  boincvm ping --timeout 1s 'web.*'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    asking.add_common(parser)
    parser.epilog = _EPILOG
    asking.add_selectors(parser)
    parser.add_argument(
        "--timeout",
        type=option(values.duration),
        metavar="TIME",
        help="how long to wait (default: 5s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Ask them. Returns 0 if all answer. Raises BoincvmError."""
    client = asking.client_of(arguments)
    found: dict[str, object] = {}
    for selector in arguments.vms:
        told = client.call("ping", vms=selector, timeout=arguments.timeout)["answers"]
        found.update(told if isinstance(told, dict) else {})
    if arguments.json:
        asking.print_document({"answers": found})
    elif not found:
        print("nobody is there to be asked")
    for vm, seconds in found.items() if not arguments.json else ():
        is_there = isinstance(seconds, int | float)
        print(f"{vm}  {float(str(seconds)) * 1e3:.1f} ms" if is_there else f"{vm}  no answer")
    is_whole = bool(found) and None not in found.values()
    return ExitCode.SUCCESS if is_whole else ExitCode.GUEST_HUNG
