"""Runs commands in one machine of a controller, and sees to it that their output is whole."""

import shlex
from collections.abc import Sequence

from boincvm.client.client import Client, Table
from boincvm.client.run import End, Screen, Write, ends_of, follow
from boincvm.errors import HostError, OutputFileError
from boincvm.runner.sweep_results import STDERR, STDOUT

_LIMIT = 600.0
"""Seconds for a command of ours in a machine."""


class WholeOutput(Screen):
    """Passes the output of one machine on, and refuses to leave any of it out."""

    def __init__(self, write: Write) -> None:
        super().__init__(write, is_prefixed=False)
        self._next = dict.fromkeys((STDOUT, STDERR), 0)

    @property
    def seen(self) -> int:
        """Return the offset before which nothing is missing in either stream."""
        return min(self._next.values())

    @property
    def total(self) -> int:
        """Return how many bytes have been passed on."""
        return sum(self._next.values())

    def show(self, vm: str, stream: str, offset: int, data: bytes) -> None:
        """Pass on what is new. Raises OutputFileError if something before it is missing."""
        expected = self._next.get(stream, 0)
        if offset > expected:
            raise OutputFileError(
                f"{offset - expected} bytes of {stream} are lost: it was printed faster than the"
                " controller passed it on",
                hint="let the program write it to a file, and bring that back with --output",
            )
        new = data[expected - offset :]
        if new:
            self._next[stream] = expected + len(new)
            super().show(vm, stream, expected, new)


def end_in(command: Table, vm: str) -> End:
    """Return how a command, as `follow` returns it, ended in `vm`. Raises HostError."""
    end = ends_of(command).get(vm)
    if end is None:
        raise HostError(f"the controller has no answer of {vm}", hint="boincvm ps")
    return end


def run_ours(
    client: Client,
    vm: str,
    directory: str,
    argv: Sequence[str],
    *,
    limit: float = _LIMIT,
    most: int = 4096,
) -> bytes:
    """Run a command of ours in a machine; return the first `most` bytes of its output.

    Raises BoincvmError if it fails.
    """
    printed = {STDOUT: bytearray(), STDERR: bytearray()}

    def write(stream: str, data: bytes) -> None:
        found = printed[stream]
        found += data[: most - len(found)]

    _, output = client.run(vms=vm, argv=list(argv), directory=directory, timeout=limit)
    end = end_in(follow(output, WholeOutput(write)), vm)
    if end.code == 0:
        return bytes(printed[STDOUT])
    reason = printed[STDERR].decode(errors="replace").strip()
    raise HostError(
        f"{shlex.join(argv[:3])} failed in {vm}: {reason[:200] or end.message}",
        hint=end.hint or "is there room on its disk?",
    )
