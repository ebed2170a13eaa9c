"""Run one program for the host: its processes, its three streams, its end."""

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
"""Bytes of standard input that the host may send before the program has read any."""


class Program:
    """A program, started by the constructor; `environment`: NAME=VALUE each.

    The program may send `credit` bytes of output before the host grants more; its status channel
    is a third stream. `reports_usage`: its usage is sent with each heartbeat. Raises
    CannotStartError.
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
            self.outputs[status_channel.descriptor] = "status-channel"

    @property
    def stdin_waiting(self) -> int:
        """Return the descriptor to watch for room in standard input, or -1."""
        return self._stdin if self._input or self._input_ends else -1

    @property
    def may_read(self) -> bool:
        """Tell whether the program's output may be read now; otherwise the program waits."""
        return self._link.has_room and (self._credit > 0 or self._ended is not None)

    def grant(self, credit: int) -> None:
        """Allow that many more bytes of output."""
        self._credit += credit

    def feed(self, data: bytes, *, ends: bool) -> None:
        """Queue data for the program's standard input."""
        if self._stdin < 0:
            return  # the program has closed it; what it does not want is dropped, as in a pipe
        if data:
            self._input.append(data)
        self._input_ends = self._input_ends or ends

    def write_input(self) -> None:
        """Write as much as the program accepts now, and report how much that was."""
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
        """Close the program's standard input."""
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1
        self._input.clear()
        self._input_ends = False

    def read_output(self, descriptor: int) -> bool:
        """Forward what the program has written; return False at the stream's end."""
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
        """Stop its processes until `release`."""
        if self._ended is None:
            self._group.freeze()

    def release(self) -> None:
        """Let its processes run again after `hold`; calling this again is harmless."""
        if self._ended is None:
            self._group.thaw()

    def signal(self, number: int) -> None:
        """Send a signal to its process group, as a terminal does; 9 kills all descendants."""
        if self._ended is None:
            if number == 9:
                self._group.kill()
            else:
                try:
                    os.killpg(self.pid, number)
                except ProcessLookupError:
                    pass  # it has just ended

    def end(self, status: int, largest: int) -> None:
        """Handle the end of the first process: `status` is from waitpid, `largest` its RSS in KiB.

        Its descendants are killed: they could keep the streams open for ever.
        """
        self._ended = (status, largest)
        self._group.kill()
        self.close_input()
        if self._status_channel is not None:
            self._status_channel.end()

    @property
    def is_over(self) -> bool:
        """Tell whether it has ended and all its output has been forwarded."""
        return self._ended is not None and not self.outputs

    def report_usage(self) -> None:
        """Send the program's usage so far."""
        user, system = self._group.cpu_time()
        resident = str(self._group.resident())
        headers = {"user-us": str(user), "system-us": str(system), "rss-kib": resident}
        self._link.send("usage", self.call, headers)

    def report(self) -> None:
        """Send how the program ended."""
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
        """Close the descriptors and kill the processes, as far as possible."""
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
        """Remove the control group; return False while it still has processes."""
        return self._group.remove()


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
