"""What the verbs that ask a controller have in common: options, tables, outcomes."""

import argparse
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from boincvm import standard_error
from boincvm.errors import BoincvmError
from boincvm.exit_codes import ExitCode

if TYPE_CHECKING:
    from boincvm.client.client import Client, Table

SELECTOR_HELP = "an id, a pattern like 'web.*', labels like 'site=cern,cpus>=2', or all"
# Functions of the completion scripts, see completion.py; bash's takes "_dir" and "_file" as a sign.
MACHINES = "_boincvm_machines"
MACHINES_OR_DIRECTORIES = "_boincvm_machines_or_dirs"
FILES_OR_MACHINES = "_boincvm_files_or_machines"


def add_common(parser: argparse.ArgumentParser) -> None:
    """The options that all of them have."""
    add_controller(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_controller(parser: argparse.ArgumentParser) -> None:
    """Which one is asked."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--controller",
        metavar="URL",
        help="which one: http://HOST:PORT, https://HOST:PORT or unix:PATH"
        " (default: $BOINCVM_CONTROLLER, else this user's own)",
    )


def add_selectors(parser: argparse.ArgumentParser) -> None:
    """One or more, as `arguments.vms`."""
    completed(
        parser.add_argument("vms", metavar="SELECTOR", nargs="+", help=f"which: {SELECTOR_HELP}")
    )


def completed(action: argparse.Action, function: str = MACHINES) -> argparse.Action:
    """Shells complete this argument with the ids of machines, or what else `function` finds."""
    action.complete = {"bash": function, "zsh": function}  # type: ignore[attr-defined]
    return action


def client_of(arguments: argparse.Namespace) -> "Client":
    """Raises UsageError."""
    from boincvm.client.address import find_address
    from boincvm.client.client import Client

    return Client(find_address(arguments.controller))


def print_document(document: object) -> None:
    print(json.dumps(document))


def print_line(document: object) -> None:
    """One of a stream's: at once."""
    print(json.dumps(document), flush=True)


def print_rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table with aligned columns; the last one is as long as it likes."""
    widths = [max(len(row[at]) for row in (header, *rows)) for at in range(len(header))]
    for row in (header, *rows):
        cells = [f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


@contextmanager
def waiting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Says so while the block lasts, if a person looks on; what it gives takes how much of how
    much is done."""
    shown = ""

    def show(line: str) -> None:
        nonlocal shown
        if line != shown:
            shown = line
            standard_error.show(f"\r{line}")

    if not standard_error.is_terminal():
        yield lambda _done, _size: None
        return
    show(f"boincvm: {what} …")
    try:
        yield lambda done, size: show(f"boincvm: {what} … {100 * done // max(size, 1)} %")
    finally:
        standard_error.show("\r\x1b[K")


def known_code(code: int) -> ExitCode:
    """As one of ours."""
    return ExitCode(code) if code in set(ExitCode) else ExitCode.CHILD_FAILED


# Outcomes of several machines.


def each(
    arguments: argparse.Namespace, operation: str, what: str, done: str, **asked: object
) -> int:
    """`operation` for all of `arguments.vms`, and its outcomes shown. `what`, `done`: words for
    what goes on, and for what then is. Returns the exit code."""
    client = client_of(arguments)
    with waiting(f"{what} {', '.join(arguments.vms)}"):
        told = ask_each(
            arguments.vms, lambda vms: client.call(operation, vms=vms, **asked).get("outcomes")
        )
    return show_outcomes(told, as_json=arguments.json, describe=lambda _one: done)


def ask_each(selectors: Sequence[str], ask: Callable[[str], object]) -> "dict[str, Table]":
    """The outcomes by id; a selector that as a whole came to nothing has one of its own."""
    answers: dict[str, object] = {}

    def work(selector: str) -> None:
        try:
            answers[selector] = ask(selector)
        except BoincvmError as error:
            answers[selector] = error

    if len(selectors) == 1:
        work(selectors[0])
    else:
        # Daemons: Ctrl-C does not wait for machines that take their time.
        threads = [threading.Thread(target=work, args=(one,), daemon=True) for one in selectors]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if len(selectors) == 1 and isinstance(answers[selectors[0]], BoincvmError):
        raise answers[selectors[0]]  # type: ignore[misc]
    outcomes: dict[str, Table] = {}
    for selector in selectors:
        answer = answers[selector]
        if isinstance(answer, BoincvmError):
            told: Table = {"message": answer.message, "hint": answer.hint}
            outcomes[selector] = {"error": {**told, "code": int(answer.exit_code)}}
        elif isinstance(answer, dict):
            outcomes.update(answer)
    return outcomes


def show_outcomes(
    outcomes: "Mapping[str, Table]", *, as_json: bool, describe: "Callable[[Table], str]"
) -> int:
    """A line for each; returns the exit code of the first error."""
    from boincvm.client.client import error_of

    if as_json:
        print_document({"outcomes": dict(outcomes)})
    code = 0
    for vm, outcome in outcomes.items():
        if "error" not in outcome:
            if not as_json:
                print(f"{vm} {describe(outcome)}", flush=True)
            continue
        error = error_of(outcome["error"])
        code = code or int(error.exit_code)
        if not as_json:
            standard_error.say(f"boincvm: {vm}: {error.message}")
            if error.hint:
                standard_error.say(f"  {error.hint}")
    return code
