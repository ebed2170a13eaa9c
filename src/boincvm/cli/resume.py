"""`boincvm resume`: lets suspended machines continue."""

import argparse

from boincvm.cli import controller_options

_EPILOG = """\
examples:
  boincvm resume web.1

Machines that were suspended with --to-disk are resumed by boincvm start.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    controller_options.add_common(parser)
    parser.epilog = _EPILOG
    controller_options.add_selectors(parser)


def run(arguments: argparse.Namespace) -> int:
    """Resume the machines and wait until they run. Raises BoincvmError."""
    return controller_options.each(arguments, "resume", "resuming", "is running")
