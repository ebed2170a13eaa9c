"""Output that all verbs share: errors for people, errors and results for machines."""

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress

from boincvm import standard_error
from boincvm.errors import DISK_FULL, BoincvmError, HostDiskFullError, HostError
from boincvm.exit_codes import ExitCode
from boincvm.host.files import open_descriptor

_STANDARD_OUTPUT = 1


def wants_json(arguments: list[str]) -> bool:
    """Tell whether `--json` is among our own arguments, those before `--`."""
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in own


def print_json(value: Mapping[str, object]) -> None:
    """Print `value` as one line on standard output."""
    print(json.dumps(value))


def print_indented_json(document: object) -> None:
    """Print `document` on standard output for people and machines alike."""
    print(json.dumps(document, indent=2))


def can_encode(text: str) -> bool:
    """Tell whether standard output's encoding has the characters of `text`."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


class ReaderGoneError(Exception):
    """Nobody reads our standard output any more, as after `| head`."""


def flush_standard_output() -> None:
    """Flush standard output. Raises ReaderGoneError and OSError; the buffer is discarded then."""
    try:
        print(end="", flush=True)
    except BrokenPipeError as error:
        _abandon_standard_output()
        raise ReaderGoneError from error
    except OSError:
        _abandon_standard_output()
        raise


def write_output(data: bytes) -> None:
    """Write a program's standard output immediately. Raises ReaderGoneError, OSError."""
    sys.stdout.buffer.write(data)
    flush_standard_output()


def write_errors(data: bytes) -> None:
    """Write a program's standard error immediately. Raises ReaderGoneError, OSError."""
    try:
        standard_error.write(data)
    except BrokenPipeError as error:
        raise ReaderGoneError from error


def _abandon_standard_output() -> None:
    # Otherwise the interpreter flushes again as it ends, fails, and exits with 120.
    nowhere = open_descriptor(os.devnull, "a")
    os.dup2(nowhere, _STANDARD_OUTPUT)
    os.close(nowhere)


def report(error: BaseException, *, as_json: bool) -> int:
    """Report `error` to a person (or, if `as_json`, to a machine); return its exit code."""
    code = _report(error, as_json)
    # An error of standard output itself is what is being reported, or nobody reads it.
    with suppress(ReaderGoneError, OSError):
        flush_standard_output()
    return code


def _report(error: BaseException, as_json: bool) -> int:
    match error:
        case KeyboardInterrupt():
            return _print_error(
                BoincvmError("interrupted", exit_code=ExitCode.INTERRUPTED), as_json
            )
        case BoincvmError():
            return _print_error(error, as_json)
        case ReaderGoneError():
            return ExitCode.OUTPUT_CLOSED
        case BrokenPipeError() if _reader_is_gone():  # if output is not buffered
            return ExitCode.OUTPUT_CLOSED
        case OSError():
            return _print_error(_of_the_host(error), as_json)
        case _:
            import traceback  # rarely needed

            standard_error.show("".join(traceback.format_exception(error)))
            bug = BoincvmError(
                f"this is a bug: {type(error).__name__}",
                hint="please report it, with the lines above and the command that you gave",
            )
            return _print_error(bug, as_json)


def _print_error(error: BoincvmError, as_json: bool) -> int:
    code = int(error.exit_code)
    if as_json:
        details = {"message": error.message, "hint": error.hint, "exit_code": code}
        with suppress(OSError):  # the error to report may be standard output's own
            print_json({"error": details})
        return code
    standard_error.write_line(f"boincvm: {error.message}")
    if error.hint:
        standard_error.write_line(f"  {error.hint}")
    return code


def _of_the_host(error: OSError) -> BoincvmError:
    reason = error.strerror or str(error) or type(error).__name__
    message = reason if error.filename is None else f"{reason}: {os.fsdecode(error.filename)!r}"
    if error.errno in DISK_FULL:
        return HostDiskFullError(message, hint="free some space; boincvm doctor shows how much is")
    return HostError(message)


def _reader_is_gone() -> bool:
    """Tell whether standard output, and not some other pipe, is broken."""
    from boincvm.host.channels import reader_has_gone  # rarely needed

    return reader_has_gone(_STANDARD_OUTPUT)
