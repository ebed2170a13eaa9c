"""`boincvm logs`: shows the log of a machine's shim."""

import argparse

from boincvm.cli import controller_options

_EPILOG = """\
examples:
  boincvm logs web.1
  boincvm logs -n 1000 web.1

The output of commands is not in the log: boincvm exec prints it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    controller_options.add_common(parser)
    parser.epilog = _EPILOG
    controller_options.completed(parser.add_argument("vm", metavar="VM", help="a machine's id"))
    parser.add_argument(
        "-n", "--lines", type=int, metavar="N", help="at most the last N lines (default: 200)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the log. Raises BoincvmError."""
    answer = controller_options.client_of(arguments).call(
        "logs", vm=arguments.vm, lines=arguments.lines
    )
    if arguments.json:
        controller_options.print_document(answer)
        return 0
    lines = answer.get("lines")
    for line in lines if isinstance(lines, list) else ():
        print(controller_options.printable(line))
    return 0
