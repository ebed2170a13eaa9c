"""The console script. Nothing is imported before it is needed: `--version` answers immediately."""

import sys


def main(argv: list[str] | None = None) -> int:
    """Run the verb in `argv` (by default the process's own arguments); return the exit code."""
    is_own_process = argv is None
    arguments = sys.argv[1:] if argv is None else argv
    try:
        if arguments == ["--version"]:
            from boincvm import __version__

            print(f"boincvm {__version__}", flush=True)
            return 0
        from boincvm.gc_freeze import defer_collection, freeze_imports

        if is_own_process:
            defer_collection()
            from boincvm.host.inherited import reset_inherited_state

            reset_inherited_state()
        from boincvm.cli.output import flush_standard_output
        from boincvm.cli.verbs import prepare

        run = prepare(arguments)
        if is_own_process:
            freeze_imports()
        code = run()
        flush_standard_output()
    except BaseException as error:  # the last place where an error can be reported
        from boincvm.cli.output import report, wants_json

        return report(error, as_json=wants_json(arguments))
    return code


if __name__ == "__main__":
    sys.exit(main())
