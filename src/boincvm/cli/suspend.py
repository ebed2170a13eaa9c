"""`boincvm suspend`: pauses machines in memory, or saves them to disk."""

import argparse

from boincvm.cli import controller_options

_EPILOG = """\
examples:
  boincvm suspend web.1                then boincvm resume web.1
  boincvm suspend --to-disk 'web.*'    then boincvm start 'web.*': they resume
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    controller_options.add_common(parser)
    parser.epilog = _EPILOG
    controller_options.add_selectors(parser)
    parser.add_argument(
        "--to-disk", action="store_true", help="save them to disk and end them; start resumes them"
    )


def run(arguments: argparse.Namespace) -> int:
    """Suspend the machines and wait until they are paused or saved. Raises BoincvmError."""
    if arguments.to_disk:
        return controller_options.each(arguments, "save", "saving", "is saved")
    return controller_options.each(arguments, "pause", "suspending", "is paused")
