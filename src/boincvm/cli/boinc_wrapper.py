"""`boincvm-wrapper`: the program that a BOINC client starts in a slot."""

import sys

from boincvm import __version__
from boincvm.imports import lasting, own_process


def main() -> int:
    """Runs the slot's job.xml; takes the arguments of BOINC's own wrapper."""
    own_process()
    with lasting():
        from boincvm.errors import UsageError
        from boincvm.job.wrapper_arguments import parse_wrapper_arguments
        from boincvm.wrapper.client_log import log

    try:
        arguments = parse_wrapper_arguments(sys.argv[1:])
    except UsageError as error:
        log(f"{error.message}; {error.hint}")
        return error.exit_code
    if arguments.show_version:
        print(f"boincvm-wrapper {__version__}")
        return 0
    with lasting():
        from boincvm.wrapper.under_client import run_under_client

    return run_under_client(arguments)


if __name__ == "__main__":
    sys.exit(main())
