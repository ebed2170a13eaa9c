"""The console script. Nothing is imported before it is needed: `--version` answers at once."""

import sys


def main(argv: list[str] | None = None) -> int:
    """Do what `argv` (by default the process's own arguments) says; return the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        if arguments == ["--version"]:
            from boincvm import __version__

            print(f"boincvm {__version__}", flush=True)
            return 0
        from boincvm.imports import lasting, own_process

        if argv is None:
            own_process()
        with lasting():
            from boincvm.cli.output import flush_standard_output
            from boincvm.cli.verbs import dispatch

        code = dispatch(arguments)
        flush_standard_output()
    except BaseException as error:  # the last place where an error can be told to a person
        from boincvm.cli.output import report, wants_json

        return report(error, as_json=wants_json(arguments))
    return code


if __name__ == "__main__":
    sys.exit(main())
