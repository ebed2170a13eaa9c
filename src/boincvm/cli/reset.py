"""`boincvm reset`: machines are switched off and boot."""

import argparse

from boincvm.cli import asking

_EPILOG = """\
examples:
  boincvm reset web.1

What a machine had on disk it keeps; what it had saved of its memory is forgotten.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    asking.add_common(parser)
    parser.epilog = _EPILOG
    asking.add_selectors(parser)


def run(arguments: argparse.Namespace) -> int:
    """Until they run. Raises BoincvmError."""
    return asking.each(arguments, "reset", "resetting", "is running")
