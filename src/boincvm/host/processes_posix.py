"""Child processes on Linux and macOS; import it through `processes`."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from boincvm.host.programs import quiet_environment
from boincvm.host.signals import TERMINATION_SIGNALS

assert sys.platform != "win32"

if sys.platform == "darwin":
    from boincvm.host.processes_macos import (
        die_with_parent,
        exit_status,
        kill_opened,
        open_process,
        use_idle_io,
    )
else:
    from boincvm.host.processes_linux import (
        die_with_parent,
        exit_status,
        kill_opened,
        open_process,
        use_idle_io,
    )

__all__ = [
    "ChildProcess",
    "DeathGuard",
    "ProcessWatch",
    "die_with_parent",
    "exit_status",
    "kill_group",
    "kill_opened",
    "lower_priority",
    "open_process",
    "process_exists",
    "signal_group",
    "spawn_detached",
    "terminate_group",
    "wait_for_child",
    "watch_process",
    "use_idle_io",
    "yield_processor",
]

_LEAST_PRIORITY = 19


GUARD = "setpriv"
"""The program that ends our children with us, if the system does not."""


class ChildProcess:
    """A running child; on Linux the kernel kills it when the thread that started it dies.

    It ignores TERMINATION_SIGNALS: a service manager that stops everything sends them to all
    processes alike, and what is to be saved must outlive them until we have saved it.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        directory: Path,
        descriptors: Sequence[int] = (),
        stdout: int = subprocess.DEVNULL,
        stderr: BinaryIO | int = subprocess.DEVNULL,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start `argv` in a session of its own, so that it does not get a terminal's Ctrl-C.

        `descriptors` are inherited under their own numbers. Raises OSError.
        """
        former = signal.pthread_sigmask(signal.SIG_BLOCK, TERMINATION_SIGNALS)  # which exec keeps
        try:
            process = subprocess.Popen(
                die_with_parent(argv),
                cwd=directory,
                env=dict(quiet_environment() if environment is None else environment),
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, former)
        process.returncode = 0  # we wait for it ourselves
        self.pid = process.pid
        self._status: int | None = None

    def _wait(self, options: int) -> int | None:
        if self._status is None:
            try:
                pid, status = os.waitpid(self.pid, options)
            except ChildProcessError:
                pid, status = self.pid, 0  # we inherited an ignored SIGCHLD: unknown
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    @property
    def is_running(self) -> bool:
        return self._wait(os.WNOHANG) is None

    def kill(self) -> None:
        """Kill it, even if it is stopped."""
        if self.is_running:
            os.kill(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill it and wait for its end, which takes an instant."""
        self.kill()
        self._wait(0)

    async def wait(self) -> int:
        """Wait for its end and return its exit status, or minus the number of the fatal signal."""
        if self._status is None:
            await _until_ended(self.pid)
        status = self._wait(0)
        if status is None:
            raise RuntimeError("a process has ended without a status")
        return status


class DeathGuard:
    """A small process that kills another one when we are gone, however we go.

    A child is told by the kernel (`die_with_parent`), but for a set-user-ID program the kernel
    forgets that.
    """

    def __init__(self, pid: int, argument: str) -> None:
        """Guard the process `pid`, whose command line has `argument` in it. Raises OSError."""
        read_end, self._write_end = os.pipe()
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, str(pid), argument],
                stdin=read_end,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=quiet_environment(),
                start_new_session=True,
            )
        except BaseException:
            os.close(self._write_end)
            raise
        finally:
            os.close(read_end)
        process.returncode = 0  # we wait for it ourselves
        self._pid = process.pid

    def end(self) -> None:
        """End the guard; what it guarded has ended. Idempotent."""
        if self._write_end >= 0:
            os.kill(self._pid, signal.SIGKILL)
            os.close(self._write_end)
            self._write_end = -1
            with suppress(ChildProcessError):  # we inherited an ignored SIGCHLD
                os.waitpid(self._pid, 0)


_GUARD = """\
read -r _
if [ -r "/proc/$0/cmdline" ]; then
    words=$(tr '\\0' ' ' <"/proc/$0/cmdline")
else
    words=$(ps -o args= -p "$0")
fi
case $words in *"$1"*) kill -KILL "$0" ;; esac
"""
"""Waits until our end of the pipe is closed. The id may be another process's by then."""


async def _until_ended(pid: int) -> None:
    """Wait until the process `pid`, a child not yet waited for, has ended."""
    import asyncio  # not needed by callers that only start a child

    ended = asyncio.Event()
    watch = watch_process(pid, ended.set)
    if watch is None:
        from boincvm.host.not_yet import not_yet

        raise not_yet("waiting for the end of a child process")
    try:
        await ended.wait()
    finally:
        watch.close()


class ProcessWatch:
    """Calls `ended` when a process has ended, by its descriptor, until `close`."""

    def __init__(self, descriptor: int, ended: Callable[[], object]) -> None:
        """Take the descriptor of the process, of `open_process`."""
        import asyncio

        self._descriptor = descriptor
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._notify)

    def _notify(self) -> None:
        self.close()
        self._ended()

    def close(self) -> None:
        """Stop watching; `ended` is not called any more. Idempotent."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


def watch_process(pid: int, ended: Callable[[], object]) -> ProcessWatch | None:
    """Call `ended` in the running event loop when the process `pid` has ended, until `close`.

    Returns None where the kernel cannot tell. Raises ProcessLookupError if it does not exist.
    """
    descriptor = open_process(pid)
    return None if descriptor is None else ProcessWatch(descriptor, ended)


def process_exists(pid: int) -> bool:
    """Tell whether a process `pid` of any user exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it exists, as another user's
    return True


def spawn_detached(argv: Sequence[str], log: int) -> int:
    """Start `argv` so that it outlives us, and return its process id.

    It has a session of its own; its output goes to the descriptor `log`. Raises OSError.
    """
    # Not `subprocess`, which expects to wait for every process that it starts.
    return os.posix_spawn(
        argv[0],
        list(argv),
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, log, 1),
            (os.POSIX_SPAWN_DUP2, log, 2),
        ],
        setsid=True,
    )


def wait_for_child(pid: int) -> int:
    """Wait for the child `pid` and return its exit status, or minus the number of the fatal signal.

    Raises OSError.
    """
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def terminate_group(leader: int) -> None:
    """Ask the process group that `leader` leads to end. Raises OSError."""
    os.killpg(leader, signal.SIGTERM)


def kill_group(leader: int) -> None:
    """Kill the process group that `leader` leads. Raises OSError."""
    os.killpg(leader, signal.SIGKILL)


def signal_group(leader: int, number: int) -> None:
    """Send a signal to the process group that `leader` leads. Raises OSError."""
    os.killpg(leader, number)


def yield_processor() -> None:
    """Let other processes run first, for an instant."""
    os.sched_yield()


def lower_priority() -> None:
    """Give this process the lowest CPU priority."""
    os.nice(_LEAST_PRIORITY)
