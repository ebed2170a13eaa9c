"""`boincvm-wrapper`: the program that a BOINC client starts in a slot."""

import os
import sys

from boincvm import __version__
from boincvm.gc_freeze import defer_collection, freeze_imports
from boincvm.host.inherited import reset_inherited_state


def main() -> int:
    """Run the slot's job.xml with the arguments of BOINC's own wrapper; return the exit code."""
    defer_collection()
    reset_inherited_state()
    from boincvm.redaction import RedactedErrors, hide, hide_this_user

    sys.stderr = RedactedErrors()
    hide_this_user()
    hide(os.getcwd(), "")  # noqa: PTH109 - the slot, as text
    from boincvm.errors import UsageError
    from boincvm.job.wrapper_arguments import HELP, parse_wrapper_arguments
    from boincvm.wrapper.log import log

    try:
        arguments = parse_wrapper_arguments(sys.argv[1:])
    except UsageError as error:
        log(f"{error.message}; {error.hint}")
        return error.exit_code
    if arguments.show_version:
        print(f"boincvm-wrapper {__version__}")
        return 0
    if arguments.show_help:
        print(HELP, end="")
        return 0
    from boincvm.wrapper.main import run_task

    freeze_imports()
    return run_task(arguments)


if __name__ == "__main__":
    sys.exit(main())
