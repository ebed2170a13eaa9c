"""A shell on a terminal of its own in the guest: a bridge between pipes and a pty.

This text runs as `python3 -c`, so it imports nothing of boincvm. Arguments: rows, columns, and the
program, by default bash or sh. Standard output is what the terminal shows. Standard input is what
is typed, except that NUL begins one of:

    NUL NUL                     one NUL
    NUL w ROWS COLUMNS          the window's size; two bytes each, big-endian

When standard input ends, or is silent for SILENCE, the shell is hung up and, if that is not enough,
killed; the guest's agent kills whatever it leaves behind. The exit code is the shell's, 128 plus
the signal's number if one killed it, 127 if the program does not exist, or 126 if it cannot be run.
"""

import errno
import fcntl
import os
import select
import signal
import struct
import sys
import termios
import time

assert sys.platform == "linux"  # noqa: S101 - as guests are

ROOM = 1 << 16
GRACE = 1.0
HANG_UP_TIME = 5.0
LEAST_READS = 16
DRAIN_TIME = 0.2
SILENCE = 600.0
CANNOT_RUN = 126
NO_SUCH = 127


class Frames:
    """Extracts frames from the input, in which they may be split."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> tuple[bytes, tuple[int, int] | None]:
        """Return the keys, and the last window size if there was one."""
        data, self._rest = self._rest + data, b""
        keys, size, at = b"", None, 0
        while (mark := data.find(b"\0", at)) >= 0:
            keys += data[at:mark]
            length = 6 if data[mark + 1 : mark + 2] == b"w" else 2
            if len(data) < mark + length:
                self._rest = data[mark:]
                return keys, size
            if length == 6:
                size = struct.unpack(">HH", data[mark + 2 : mark + 6])
            else:
                keys += data[mark + 1 : mark + 2]
            at = mark + length
        return keys + data[at:], size


def set_size(terminal: int, rows: int, columns: int) -> None:
    """Set the terminal's size; the kernel notifies its processes of a change."""
    if rows and columns:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def start(argv: list[str], rows: int, columns: int) -> tuple[int, int]:
    """Start the shell; return its process id and our end of its terminal."""
    pid, terminal = os.forkpty()
    if pid == 0:
        try:
            set_size(0, rows, columns)
            for number in signal.valid_signals():  # Python ignores some, `nohup` and `&` others
                if signal.getsignal(number) == signal.SIG_IGN:
                    signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.execvp(argv[0], argv)  # noqa: S606 - its purpose
        except OSError as error:
            os.write(2, f"{argv[0]}: {error.strerror}\n".encode(errors="surrogateescape"))
            os._exit(NO_SUCH if error.errno == errno.ENOENT else CANNOT_RUN)
        finally:
            os._exit(CANNOT_RUN)
    os.set_blocking(terminal, False)
    return pid, terminal


class Bridge:
    """Connects standard input, the terminal and standard output.

    Writing to the terminal does not block: a program that does not read may still write much.
    """

    def __init__(self, pid: int, terminal: int) -> None:
        self._pid = pid
        self._shell = os.pidfd_open(pid)
        self._terminal = terminal
        self._is_open = True
        self._frames = Frames()
        self._typed = b""
        self._last_input = time.monotonic()

    def run(self) -> int:
        """Run until the shell has ended or the input ends; return the shell's wait status."""
        while True:
            ready = self._wait()
            if self._shell in ready:
                self._show_last()
                break
            if self._terminal in ready:
                self._type()
                if ready[self._terminal] & ~select.POLLOUT:
                    self._show()
            if 0 in ready:
                is_there = self._receive()
            else:
                is_there = self._is_full or time.monotonic() < self._last_input + SILENCE
            if not is_there:
                self._hang_up()
                break
        return os.waitpid(self._pid, 0)[1]

    @property
    def _is_full(self) -> bool:
        return len(self._typed) >= ROOM

    def _wait(self) -> dict[int, int]:
        poll = select.poll()
        poll.register(self._shell, select.POLLIN)
        if self._is_open:
            wanted = select.POLLIN | select.POLLOUT if self._typed else select.POLLIN
            poll.register(self._terminal, wanted)
        if not self._is_full:
            poll.register(0, select.POLLIN)
        return dict(poll.poll(SILENCE * 1000))

    def _receive(self) -> bool:
        """Read what is typed; return False at its end."""
        data = os.read(0, ROOM)
        keys, size = self._frames.feed(data)
        self._last_input = time.monotonic()
        if self._is_open:
            self._typed += keys
            if size is not None:
                set_size(self._terminal, *size)
            self._type()
        return bool(data)

    def _type(self) -> None:
        try:
            self._typed = self._typed[os.write(self._terminal, self._typed) :]
        except BlockingIOError:
            pass
        except OSError:  # no process has it open any more
            self._typed = b""

    def _show(self) -> bool:
        """Write what the terminal shows; return False if there is nothing now or any more."""
        try:
            data = os.read(self._terminal, ROOM)
        except BlockingIOError:
            return False
        except OSError:  # no process has it open any more, and all is read
            self._is_open = False
            self._typed = b""
            return False
        left = memoryview(data)
        while left:
            left = left[os.write(1, left) :]
        return bool(data)

    def _show_last(self) -> None:
        """Write the last output, which may still be passing through the kernel.

        Processes that the shell has left behind may keep the terminal open and write on. So there
        is a limit of time; but this process may have to wait for a processor for so long, and then
        has still read nothing of what the kernel holds.
        """
        poll = select.poll()
        poll.register(self._terminal, select.POLLIN)
        end = time.monotonic() + GRACE
        reads = 0
        while self._is_open and poll.poll(DRAIN_TIME * 1000):
            if reads >= LEAST_READS and time.monotonic() >= end:
                break
            self._show()
            reads += 1

    def _hang_up(self) -> None:
        os.close(self._terminal)  # the kernel sends SIGHUP
        poll = select.poll()
        poll.register(self._shell, select.POLLIN)
        if not poll.poll(HANG_UP_TIME * 1000):
            os.kill(self._pid, signal.SIGKILL)


def main(arguments: list[str]) -> int:
    """Run the shell; return its exit code."""
    rows, columns, *argv = arguments
    argv = argv or ["/bin/bash" if os.access("/bin/bash", os.X_OK) else "/bin/sh"]
    bridge = Bridge(*start(argv, int(rows), int(columns)))
    code = os.waitstatus_to_exitcode(bridge.run())
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
