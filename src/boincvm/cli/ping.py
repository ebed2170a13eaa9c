"""`boincvm ping`: shows whether guests answer, and how fast."""

import argparse

from boincvm.cli import controller_options
from boincvm.cli.parser import option
from boincvm.exit_codes import ExitCode
from boincvm.job import values

_EPILOG = """\
examples:
  boincvm ping all
  boincvm ping --timeout 1s 'web.*'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    controller_options.add_common(parser)
    parser.epilog = _EPILOG
    controller_options.add_selectors(parser)
    parser.add_argument(
        "--timeout",
        type=option(values.duration),
        metavar="TIME",
        help="how long to wait (default: 5s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Ping the guests; return 0 if all answer. Raises BoincvmError."""
    from boincvm.client.client import error_of

    client = controller_options.client_of(arguments)
    found: dict[str, object] = {}
    refused: dict[str, object] = {}
    for selector in arguments.vms:
        answer = client.call("ping", vms=selector, timeout=arguments.timeout)
        for table, key in ((found, "answers"), (refused, "refused")):
            part = answer.get(key)
            table.update(part if isinstance(part, dict) else {})
    if arguments.json:
        controller_options.print_document({"answers": found, "refused": refused})
    elif not found:
        print("there is no guest to ask")
    for vm, seconds in found.items() if not arguments.json else ():
        if isinstance(seconds, int | float):
            print(f"{vm}  {seconds * 1e3:.1f} ms")
        elif vm in refused:
            error = error_of(refused[vm])  # type: ignore[arg-type]
            print(f"{vm}  no answer: {error.message}; {error.hint}")
        else:
            print(f"{vm}  no answer")
    is_whole = bool(found) and None not in found.values()
    return ExitCode.SUCCESS if is_whole else ExitCode.GUEST_HUNG
