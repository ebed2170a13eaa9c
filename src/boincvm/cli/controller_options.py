"""Options, tables and outcomes that the verbs for a controller share."""

import argparse
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

from boincvm import standard_error
from boincvm.errors import BoincvmError
from boincvm.exit_codes import ExitCode
from boincvm.host.signals import TERMINATION_SIGNALS, block_signals

if TYPE_CHECKING:
    from boincvm.client.client import Client, Table

_PERIOD = 1.0
"""Seconds after which a line that shows for how long one has waited is drawn again."""
SELECTOR_HELP = "an id, a pattern like 'web.*', labels like 'site=cern,cpus>=2', or all"
# Functions of the completion scripts (completion.py); in bash, "_dir" and "_file" have a meaning.
MACHINES = "_boincvm_machines"
MACHINES_OR_DIRECTORIES = "_boincvm_machines_or_dirs"
FILES_OR_MACHINES = "_boincvm_files_or_machines"


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the options that all of them have."""
    add_controller(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_controller(parser: argparse._ActionsContainer) -> None:
    """Add the option that selects the controller."""
    if isinstance(parser, argparse.ArgumentParser):
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--controller",
        metavar="URL",
        help="which one: http://HOST:PORT, https://HOST:PORT or unix:PATH"
        " (default: $BOINCVM_CONTROLLER, else this user's own)",
    )


def add_selectors(parser: argparse.ArgumentParser) -> None:
    """Add one or more selectors of machines as `arguments.vms`."""
    completed(
        parser.add_argument("vms", metavar="SELECTOR", nargs="+", help=f"which: {SELECTOR_HELP}")
    )


def completed(action: argparse.Action, function: str = MACHINES) -> argparse.Action:
    """Make shells complete this argument with machines' ids, or with what `function` finds."""
    action.complete = {"bash": function, "zsh": function}  # type: ignore[attr-defined]
    return action


def client_of(arguments: argparse.Namespace) -> "Client":
    """Return a client of the selected controller. Raises UsageError."""
    from boincvm.client.address import find_address
    from boincvm.client.client import Client

    return Client(find_address(arguments.controller))


def print_document(document: object) -> None:
    print(json.dumps(document))


def print_line(document: object) -> None:
    """Print one document of a stream and flush it."""
    print(json.dumps(document), flush=True)


def printable(value: object) -> str:
    """Return a text without what could control a terminal; tabs are kept.

    Logs and results come from other hosts, too, which may be hostile.
    """
    return "".join(c for c in str(value) if c.isprintable() or c == "\t")


def tables_in(answer: "Mapping[str, object]", name: str) -> "list[Table]":
    """Return the list of tables that an answer has as `name`; what is no table is left out."""
    found = answer.get(name)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def print_rows(header: Sequence[str], rows: Sequence[Sequence[str]], *, nothing: str = "") -> None:
    """Print a table with aligned columns, the last one not padded; `nothing` if it has no rows."""
    if nothing and not rows:
        print(nothing)
        return
    widths = [max(len(row[at]) for row in (header, *rows)) for at in range(len(header))]
    for row in (header, *rows):
        cells = [f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


@contextmanager
def waiting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show what is being waited for during the block, if standard error is a terminal.

    It also shows for how long, again each second. Yields a function that takes how much is done,
    and of how much.
    """
    if not standard_error.is_terminal():
        yield lambda _done, _size: None
        return
    line = _WaitingLine(what)
    over = threading.Event()
    clock = threading.Thread(target=line.tick_until, args=(over,), daemon=True)
    line.draw()
    clock.start()
    try:
        yield line.take
    finally:
        over.set()
        clock.join()
        standard_error.show("\r\x1b[K")


class _WaitingLine:
    """What a person sees of a wait."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._begin = monotonic()
        self._done = ""
        self._shown = ""
        self._drawing = threading.Lock()

    def take(self, done: int, size: int) -> None:
        """Note that `done` of `size` is done."""
        self._done = f" {100 * done // max(size, 1)} %"
        self.draw()

    def draw(self) -> None:
        with self._drawing:
            seconds = int(monotonic() - self._begin)
            line = f"boincvm: {self._what} …{self._done}" + (f" {seconds} s" if seconds else "")
            if line != self._shown:
                standard_error.show(f"\r{line}")
                self._shown = line

    def tick_until(self, over: threading.Event) -> None:
        block_signals(TERMINATION_SIGNALS)  # one that the main thread holds back must not come here
        while not over.wait(_PERIOD):
            self.draw()


def known_code(code: int) -> ExitCode:
    """Return `code` as one of ours, or as CHILD_FAILED."""
    return ExitCode(code) if code in set(ExitCode) else ExitCode.CHILD_FAILED


# Outcomes of several machines.


def each(
    arguments: argparse.Namespace, operation: str, what: str, done: str, **asked: object
) -> int:
    """Call `operation` for all of `arguments.vms`, show the outcomes, and return the exit code.

    `what`, `done`: words for what is going on, and for the state that results.
    """
    client = client_of(arguments)
    with waiting(f"{what} {', '.join(arguments.vms)}"):
        answers = ask_each(
            arguments.vms, lambda vms: client.call(operation, vms=vms, **asked).get("outcomes")
        )
    return show_outcomes(answers, as_json=arguments.json, describe=lambda _outcome: done)


def ask_each(selectors: Sequence[str], ask: Callable[[str], object]) -> "dict[str, Table]":
    """Return the outcomes by id; a selector that failed as a whole has an outcome of its own."""
    answers: dict[str, object] = {}

    def work(selector: str) -> None:
        try:
            answers[selector] = ask(selector)
        except BoincvmError as error:
            answers[selector] = error

    if len(selectors) == 1:
        work(selectors[0])
    else:
        # Daemon threads, so that Ctrl-C does not wait for slow machines.
        threads = [
            threading.Thread(target=work, args=(selector,), daemon=True) for selector in selectors
        ]
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
            details: Table = {"message": answer.message, "hint": answer.hint}
            outcomes[selector] = {"error": {**details, "code": int(answer.exit_code)}}
        elif isinstance(answer, dict):
            outcomes.update(answer)
    return outcomes


def show_outcomes(
    outcomes: "Mapping[str, Table]", *, as_json: bool, describe: "Callable[[Table], str]"
) -> int:
    """Print a line for each outcome; return the exit code of the first error."""
    from boincvm.client.client import error_of

    if as_json:
        print_document({"outcomes": dict(outcomes)})
    elif not outcomes:
        print("there is nothing to do: no machine exists")
    code = 0
    for vm, outcome in outcomes.items():
        if "error" not in outcome:
            if not as_json:
                print(f"{vm} {describe(outcome)}", flush=True)
            continue
        error = error_of(outcome["error"])
        code = code or int(error.exit_code)
        if not as_json:
            standard_error.write_line(f"boincvm: {vm}: {error.message}")
            if error.hint:
                standard_error.write_line(f"  {error.hint}")
    return code


def show_created(made: "Table", *, as_json: bool) -> None:
    """Print the machine that was created, and how to start it."""
    if as_json:
        print_document(made)
    else:
        print(f"{made['id']} has been created; start it with: boincvm start {made['id']}")


def show_each_created(
    names: Sequence[str], create: "Callable[[str], Table]", *, as_json: bool
) -> int:
    """Create a machine of each name; print the outcomes, and return the exit code."""
    outcomes: dict[str, Table] = {}
    for name in names:
        try:
            outcomes[name] = create(name)
        except BoincvmError as error:
            outcomes[name] = {"error": {**error.table()}}
    return show_outcomes(outcomes, as_json=as_json, describe=lambda _outcome: "has been created")
