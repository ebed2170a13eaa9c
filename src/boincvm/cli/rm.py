"""`boincvm rm`: removes machines with their disks and their snapshots."""

import argparse

from boincvm.cli import controller_options

_EPILOG = """\
examples:
  boincvm rm web.1
  boincvm rm --force 'web.*'           also those that are running
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    controller_options.add_common(parser)
    parser.epilog = _EPILOG
    controller_options.add_selectors(parser)
    parser.add_argument("--force", action="store_true", help="switch off those that are running")


def run(arguments: argparse.Namespace) -> int:
    """Remove the machines. Raises BoincvmError."""
    return controller_options.each(
        arguments, "remove", "removing", "has been removed", force=arguments.force
    )
