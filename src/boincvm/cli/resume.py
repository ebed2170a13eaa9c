"""`boincvm resume`: machines that were suspended go on."""

import argparse

from boincvm.cli import asking

_EPILOG = """\
examples:
  boincvm resume web.1

What was suspended --to-disk goes on with boincvm start.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    asking.add_common(parser)
    parser.epilog = _EPILOG
    asking.add_selectors(parser)


def run(arguments: argparse.Namespace) -> int:
    """Until they run. Raises BoincvmError."""
    return asking.each(arguments, "resume", "resuming", "is running")
