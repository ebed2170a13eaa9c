"""`boincvm reset`: switches machines off and boots them again."""

import argparse

from boincvm.cli import controller_options

_EPILOG = """\
examples:
  boincvm reset web.1

A machine keeps its disk; its saved memory is discarded.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    controller_options.add_common(parser)
    parser.epilog = _EPILOG
    controller_options.add_selectors(parser)


def run(arguments: argparse.Namespace) -> int:
    """Reset the machines and wait until they run. Raises BoincvmError."""
    return controller_options.each(arguments, "reset", "resetting", "is running")
