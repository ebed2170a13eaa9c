"""`boincvm start`: boots machines, or resumes them from where they were saved."""

import argparse

from boincvm.cli import controller_options

_EPILOG = """\
examples:
  boincvm start web.1
  boincvm start 'web.*'
  boincvm start site=cern,cpus'>='2
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    controller_options.add_common(parser)
    parser.epilog = _EPILOG
    controller_options.add_selectors(parser)


def run(arguments: argparse.Namespace) -> int:
    """Start the machines and wait until they run. Raises BoincvmError."""
    return controller_options.each(arguments, "start", "starting", "is running")
