"""`boincvm stop`: shuts machines down, or switches them off."""

import argparse

from boincvm.cli import controller_options
from boincvm.cli.parser import option
from boincvm.job import values

_EPILOG = """\
examples:
  boincvm stop web.1
  boincvm stop --within 60s all        those that have not shut down by then are switched off
  boincvm stop --now 'web.*'           at once, as by the power button
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    controller_options.add_common(parser)
    parser.epilog = _EPILOG
    controller_options.add_selectors(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--now", action="store_true", help="switch them off")
    how.add_argument(
        "--within",
        type=option(values.duration),
        metavar="TIME",
        help="switch off what has not shut down by then (default: 20s)",
    )
    how.add_argument(
        "--discard", action="store_true", help="discard their saved state: they will boot"
    )


def run(arguments: argparse.Namespace) -> int:
    """Stop the machines and wait until they are off. Raises BoincvmError."""
    if arguments.discard:
        return controller_options.each(
            arguments, "discard", "discarding", "will boot when it is started"
        )
    if arguments.now:
        return controller_options.each(arguments, "power_off", "switching off", "is off")
    return controller_options.each(arguments, "stop", "stopping", "is off", within=arguments.within)
