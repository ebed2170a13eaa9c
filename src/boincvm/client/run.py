"""Follow a command as a client: its output on the screen, its input, and how it ended."""

import base64
import binascii
import os
import select
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import NamedTuple, Self

from boincvm.client.client import Client, Table
from boincvm.errors import BoincvmError, HostError
from boincvm.exit_codes import ExitCode, exit_code_for_signal
from boincvm.guestlink import signals
from boincvm.host.inherited import not_ignored
from boincvm.json_value import Json

_PIECE = 1 << 15
_LONGEST_LINE = 1 << 16
_END_LIMIT = 5.0

Write = Callable[[str, bytes], None]
"""Takes a stream's name, stdout or stderr, and bytes for it."""


class Screen:
    """Shows output: of one machine as it comes, of several line by line with the machine's id."""

    def __init__(self, write: Write, *, is_prefixed: bool) -> None:
        self._write = write
        self._is_prefixed = is_prefixed
        self._rest: dict[tuple[str, str], bytes] = defaultdict(bytes)
        self._ends: dict[tuple[str, str], int] = {}

    def show(self, vm: str, stream: str, offset: int, data: bytes) -> None:
        """Show output at `offset` of the stream, and report output missing before it."""
        missing = offset - self._ends.get((vm, stream), 0)
        self._ends[vm, stream] = offset + len(data)
        if missing > 0:
            note = f"[{missing} bytes of {stream} are no longer kept]\n".encode()
            self._write("stderr", self._prefix(vm) + note)
        if not self._is_prefixed:
            self._write(stream, data)
            return
        *lines, rest = (self._rest[vm, stream] + data).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        self._rest[vm, stream] = rest
        if lines:
            prefix = self._prefix(vm)
            self._write(stream, b"".join(prefix + line + b"\n" for line in lines))

    def end(self) -> None:
        """Show incomplete last lines."""
        for (vm, stream), rest in self._rest.items():
            if rest:
                self._write(stream, self._prefix(vm) + rest + b"\n")
        self._rest.clear()

    def _prefix(self, vm: str) -> bytes:
        return f"{vm}| ".encode() if self._is_prefixed else b""


def follow(output: Iterable[Table], screen: Screen) -> Table:
    """Show a command's output, as `Client.output` yields it, until its end.

    Returns the command as the operation `command` does. Raises BoincvmError, and what `screen`
    raises.
    """
    command: Table = {}
    for table in output:
        ended = table.get("command")
        if isinstance(ended, dict):
            command = ended
            continue
        offset = table.get("offset")
        try:
            data = base64.b64decode(str(table["data"]), validate=True)
        except (KeyError, binascii.Error) as error:
            raise HostError("the controller's answer is invalid") from error
        if isinstance(offset, int):
            screen.show(str(table.get("vm")), str(table.get("stream")), offset, data)
    screen.end()
    return command


class End(NamedTuple):
    """How a program ended in one machine."""

    code: int
    message: str = ""
    """A description for users; empty after success."""
    hint: str = ""
    """What to do, if boincvm rather than the program reports the end."""
    is_ours: bool = False
    signal: int = 0
    """The signal that ended the program, or 0."""


# Texts in a guest's report of a program that it could not start; others are about the guest itself.
_ERRORS = {
    "no such program": ExitCode.NO_SUCH_PROGRAM,
    "cannot execute": ExitCode.CANNOT_EXECUTE,
    "cannot be executed": ExitCode.CANNOT_EXECUTE,
    "cannot start": ExitCode.CANNOT_EXECUTE,
    "are larger than": ExitCode.CANNOT_EXECUTE,
}


def end_of(answer: Table) -> End:
    """Return how a program ended, from one of the answers of the operation `command`."""
    state, code, number = answer.get("state"), answer.get("code"), answer.get("signal")
    if state == "lost":
        return End(ExitCode.GUEST_DIED, f"lost: {answer.get('why')}", "see boincvm logs", True)
    if state == "refused":
        return End(ExitCode.USAGE, str(answer.get("why")), "boincvm ls shows its state", True)
    if state == "dropped":
        is_late = answer.get("why") == "too late"
        late = ExitCode.TIME_LIMIT_EXCEEDED if is_late else ExitCode.INTERRUPTED
        return End(late, f"not waited for: {answer.get('why')}", "", True)
    if answer.get("timed_out"):
        return End(
            ExitCode.TIME_LIMIT_EXCEEDED, "killed: its time limit was reached", "--timeout", True
        )
    if answer.get("error"):
        message = str(answer["error"])
        known = (code for sign, code in _ERRORS.items() if sign in message)
        hint = answer.get("hint")  # older controllers give none
        return End(next(known, ExitCode.GUEST_DIED), message, str(hint or ""), True)
    if isinstance(number, int) and number:
        name = signals.name_of(number) or f"signal {number}"
        return End(exit_code_for_signal(number), f"ended by {name}", signal=number)
    if isinstance(code, int) and code:
        return End(code, f"exit code {code}")
    return End(ExitCode.SUCCESS)


def ends_of(command: Table) -> dict[str, End]:
    """Return the ends by machine id.

    Machines that were not waited for because enough others had answered are left out.
    """
    answers = command.get("answers")
    return {
        vm: end_of(answer)
        for vm, answer in (answers.items() if isinstance(answers, dict) else ())
        if isinstance(answer, dict) and not _is_spare(answer)
    }


def _is_spare(answer: dict[str, Json]) -> bool:
    return answer.get("state") == "dropped" and answer.get("why") == "enough others have answered"


@contextmanager
def interruptible(client: Client, command_id: str) -> Iterator[None]:
    """Handle Ctrl-C within the block; only in the main thread.

    The first one interrupts the command's programs, the second one kills them, the third one is
    raised here.
    """
    count = 0

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count == 1:
            client.call("signal", id=command_id, signal=int(signal.SIGINT))
        elif count == 2:
            client.call("cancel", id=command_id)
        else:
            raise KeyboardInterrupt

    former = {number: signal.signal(number, interrupt) for number in not_ignored((signal.SIGINT,))}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


class InputFeeder:
    """Sends what the descriptor `source` yields to a command, in a thread, within the block."""

    def __init__(
        self,
        client: Client,
        command_id: str,
        source: int,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the command; `on_failure` is called in the thread if not all of it can be sent."""
        self._client = client
        self._command_id = command_id
        self._source = source
        self._on_failure = on_failure
        self.failure: BoincvmError | OSError | None = None
        """Why not all of the input was sent."""
        self._stop_reader, self._stop_writer = os.pipe()
        # A daemon: after an interrupt nobody waits for a guest that reads no input.
        self._thread = threading.Thread(target=self._feed, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        os.close(self._stop_writer)
        self._thread.join(_END_LIMIT)
        if not self._thread.is_alive():
            os.close(self._stop_reader)

    def _feed(self) -> None:
        try:
            while True:
                ready, _, _ = select.select([self._source, self._stop_reader], [], [])
                if self._stop_reader in ready:
                    return
                data = os.read(self._source, _PIECE)
                self._client.give_input(self._command_id, data, ends=not data)
                if not data:
                    return
        except (BoincvmError, OSError) as error:
            self.failure = error
            self._on_failure()
