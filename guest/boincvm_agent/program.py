"""One program that the host asked for: its processes, its three streams, its end."""

from __future__ import annotations

import posix as os  # see __init__.py

from boincvm_agent.machine import disk_free
from boincvm_agent.spawn import CHUNK, CannotStartError, start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from boincvm_agent.link import Link
    from boincvm_agent.prepared import Prepared
    from boincvm_agent.status_channel import StatusChannel

STDIN_CREDIT = 1 << 16
"""How many bytes of standard input the host may send before the program has read any."""


class Program:
    """Started by the constructor; `environment`: NAME=VALUE each. Raises CannotStartError.

    The program may send `credit` bytes of output before the host grants more. What it says by
    `voice` is a third stream of it. `reports_usage` is for whoever sends the heart-beats.
    """

    def __init__(
        self,
        link: Link,
        prepared: Prepared,
        call: str,
        directory: bytes,
        argv: list[bytes],
        environment: list[bytes],
        credit: int,
        status_channel: StatusChannel | None = None,
        *,
        reports_usage: bool = False,
    ) -> None:
        self.call = call
        self.directory = directory
        self.reports_usage = reports_usage
        self._link = link
        self._prepared = prepared
        self._credit = credit
        self._input: list[bytes] = []
        self._input_ends = False
        self._ended: tuple[int, int] | None = None
        self._status_channel = status_channel
        try:
            self._kills_before = prepared.out_of_memory_kills()
            process = start(prepared, directory, argv, environment)
        except OSError as error:
            raise CannotStartError(error.errno or 0, "agent") from None
        self.pid = process.pid
        self._group = process.group
        self._stdin = process.pipes.stdin[1]
        self.outputs = {process.pipes.stdout[0]: "stdout", process.pipes.stderr[0]: "stderr"}
        if status_channel is not None:
            self.outputs[status_channel.descriptor] = "voice"

    @property
    def stdin_waiting(self) -> int:
        """The descriptor to be watched for room, or -1."""
        return self._stdin if self._input or self._input_ends else -1

    @property
    def may_read(self) -> bool:
        """Whether the program's output may be read now; else the program waits."""
        return self._link.has_room and (self._credit > 0 or self._ended is not None)

    def grant(self, credit: int) -> None:
        """The host has room for that many more bytes of output."""
        self._credit += credit

    def feed(self, data: bytes, *, ends: bool) -> None:
        """Standard input, to be handed on as the program takes it."""
        if self._stdin < 0:
            return  # the program has closed it; what it does not want is dropped, as in a pipe
        if data:
            self._input.append(data)
        self._input_ends = self._input_ends or ends

    def write_input(self) -> None:
        """Hands on what the program takes now, and tells the host how much that was."""
        taken = 0
        try:
            while self._input:
                written = os.write(self._stdin, self._input[0])
                taken += written
                if written < len(self._input[0]):
                    self._input[0] = self._input[0][written:]
                else:
                    del self._input[0]
        except BlockingIOError:
            pass
        except OSError:  # nobody reads it any more
            self._input_ends = True
            self._input.clear()
        if taken:
            self._link.send("taken", self.call, {"bytes": str(taken)})
        if self._input_ends and not self._input:
            self.close_input()

    def close_input(self) -> None:
        """The program sees the end of its standard input."""
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1
        self._input.clear()
        self._input_ends = False

    def read_output(self, descriptor: int) -> bool:
        """Sends on what the program has written; False at the stream's end."""
        count = self._credit if 0 < self._credit < CHUNK else CHUNK
        try:
            data = os.read(descriptor, count)
        except BlockingIOError:
            return True
        except OSError:  # a broken stream has ended
            data = b""
        if not data:
            os.close(descriptor)
            del self.outputs[descriptor]
            return False
        self._credit -= len(data)
        self._link.send(self.outputs[descriptor], self.call, {}, data)
        return True

    def hold(self) -> None:
        """Its processes stand still until `release`."""
        if self._ended is None:
            self._group.freeze()

    def release(self) -> None:
        """The opposite of `hold`; again is harmless."""
        if self._ended is None:
            self._group.thaw()

    def signal(self, number: int) -> None:
        """To the program's whole session, as a terminal would; 9 reaches every descendant."""
        if self._ended is None:
            if number == 9:
                self._group.kill()
            else:
                try:
                    os.killpg(self.pid, number)
                except ProcessLookupError:
                    pass  # it has just ended

    def end(self, status: int, largest: int) -> None:
        """The first process has ended: `status` as of waitpid, `largest` its RSS in KiB.

        What it left behind is killed, or it could hold the streams open for ever.
        """
        self._ended = (status, largest)
        self._group.kill()
        self.close_input()
        if self._status_channel is not None:
            self._status_channel.end()

    @property
    def is_over(self) -> bool:
        """Ended, and all its output sent on."""
        return self._ended is not None and not self.outputs

    def report_usage(self) -> None:
        """Tells the host what the program has used so far."""
        user, system = self._group.cpu_time()
        resident = str(self._group.resident())
        headers = {"user-us": str(user), "system-us": str(system), "rss-kib": resident}
        self._link.send("usage", self.call, headers)

    def report(self) -> None:
        """Tells the host how the program ended."""
        status, largest = self._ended or (0, 0)
        user, system = self._group.cpu_time()
        headers = {
            "user-us": str(user),
            "system-us": str(system),
            "max-rss-kib": str(largest),
            "oom-kills": str(self._prepared.out_of_memory_kills() - self._kills_before),
            "disk-free": str(disk_free()),
        }
        code = os.waitstatus_to_exitcode(status)
        headers["code" if code >= 0 else "signal"] = str(abs(code))
        self._link.send("exit", self.call, headers)

    def close(self) -> None:
        """Given up: lets go of the descriptors and kills what runs, as far as that works."""
        self.close_input()
        if self._status_channel is not None:
            self._status_channel.end()
        _close(*self.outputs)
        self.outputs.clear()
        try:
            self._group.kill()
        except OSError:
            pass  # the host ends the machine

    def clean_up(self) -> bool:
        """Takes the empty control group away; False while that is still to come."""
        return self._group.remove()


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
