"""The console script. Nothing is imported before it is needed: `--version` answers at once."""

import os
import sys


def main(argv: list[str] | None = None) -> int:
    """Do what `argv` (by default the process's own arguments) says; return the exit code."""
    code = _do(sys.argv[1:] if argv is None else argv, is_own=argv is None)
    if argv is None:
        _leave(code)
    return code


def _leave(code: int) -> None:
    """Ends the process at once if it has no other threads. To take all modules apart first takes
    a third of the time that Python needs to start, for nothing (docs/benchmarks.md)."""
    threading = sys.modules.get("threading")
    if threading is None or threading.active_count() == 1:
        try:
            sys.stderr.flush()
        finally:
            os._exit(code)  # standard output was written out


def _do(arguments: list[str], *, is_own: bool) -> int:
    try:
        if arguments == ["--version"]:
            from boincvm import __version__

            print(f"boincvm {__version__}", flush=True)
            return 0
        from boincvm.imports import lasting, own_process

        if is_own:
            own_process()
        if arguments[:1] == ["run"]:
            from boincvm.cli.early_run import run_early

            code = run_early(arguments, is_own=is_own)
        else:
            with lasting():
                from boincvm.cli.verbs import dispatch

            code = dispatch(arguments)
        from boincvm.cli.output import flush_standard_output

        flush_standard_output()
    except BaseException as error:  # the last place where an error can be told to a person
        from boincvm.cli.output import report, wants_json

        return report(error, as_json=wants_json(arguments))
    return code


if __name__ == "__main__":
    sys.exit(main())
