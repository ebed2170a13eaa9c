"""Child processes on Windows; import it through `processes`.

A child and all that it starts are a job object, which Windows ends with us.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from boincvm.host import win32_windows as win32
from boincvm.host.not_yet import not_yet
from boincvm.host.patience import patiently
from boincvm.host.programs import quiet_environment

assert sys.platform == "win32"

from boincvm.host.job_objects_windows import JobObject

_GROUPS = "groups of processes"
_CREATE_SUSPENDED = 0x4
_PASSING = (32, 1359)
"""ERROR_SHARING_VIOLATION: a virus scanner reads the program. ERROR_INTERNAL_ERROR: wine says it if
the new process has died before its first instruction, which it seldom does."""
_JOB_RIGHTS = win32.TERMINATE | win32.SET_QUOTA
GUARD = ""
"""The program that ends our children with us, if the system does not."""
KILLED = 0xFFFF
"""The exit code of a process that we have killed."""


class ChildProcess:
    """A running child; Windows ends it, and all that it has started, when this process ends."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        directory: Path,
        descriptors: Sequence[int] = (),
        stdin: BinaryIO | int | None = subprocess.DEVNULL,
        stdout: BinaryIO | int | None = subprocess.DEVNULL,
        stderr: BinaryIO | int | None = subprocess.DEVNULL,
        environment: Mapping[str, str] | None = None,
        program: Path | None = None,
        priority: int = 0,
    ) -> None:
        """Start `argv` in a process group of its own, so that it does not get a console's Ctrl-C.

        It runs no instruction before it belongs to the job. `program`: the file that is started,
        if it is not looked for by `argv[0]`. `priority`: a priority class, or 0 for ours. Raises
        OSError, and ValueError if a text contains a NUL.
        """
        if descriptors:
            raise not_yet("descriptors that child processes inherit")
        self._job = JobObject()
        try:
            process = _started(
                lambda: subprocess.Popen(
                    argv,
                    executable=program,
                    cwd=directory,
                    env=dict(quiet_environment() if environment is None else environment),
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    creationflags=_CREATE_SUSPENDED
                    | subprocess.CREATE_NEW_PROCESS_GROUP
                    | subprocess.CREATE_NO_WINDOW
                    | priority,
                ),
                program or argv[0],
            )
            try:
                rights = _JOB_RIGHTS | win32.SUSPEND_RESUME
                with win32.process_handle(process.pid, rights) as handle:
                    self._job.add(handle)
                    win32.resume(handle)
            except BaseException:
                process.kill()
                process.wait()
                raise
        except BaseException:
            self._job.close()
            raise
        self._process = process
        self.pid = process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def suspend(self) -> None:
        """Suspend it and all that it has started. Raises OSError."""
        self._job.suspend()

    def resume(self) -> None:
        """Undo one `suspend`. Raises OSError."""
        self._job.resume()

    def process_ids(self) -> list[int]:
        """Return the ids of it and all that it has started and that has not ended."""
        return self._job.process_ids()

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of it and all that it has started, also of what has ended."""
        return self._job.cpu_seconds()

    def kill(self) -> None:
        """Kill it and all that it has started, even if they are suspended or it has ended."""
        self._job.terminate(KILLED)

    def end(self) -> None:
        """Kill it and wait for its end, which takes an instant."""
        self.kill()
        self._process.wait()
        self._job.close()

    async def wait(self) -> int:
        """Wait for its end and return its exit status, or -9 if we have killed it.

        What it has started and left is killed then.
        """
        if self._process.poll() is None:
            await _until_ended(self.pid)
        self._job.terminate(KILLED)
        code = self._process.wait()
        return -9 if code == KILLED else code


def _started(
    start: Callable[[], "subprocess.Popen[bytes]"], program: str | Path
) -> "subprocess.Popen[bytes]":
    """Start a process; wait a moment if its program is being scanned. Raises OSError."""
    try:
        return patiently(start, lambda error: error.winerror in _PASSING)
    except OSError as error:
        error.filename = os.fspath(program)  # Windows does not say it
        raise


async def _until_ended(pid: int) -> None:
    """Wait until the process `pid` has ended. Raises OSError."""
    import asyncio  # not needed by callers that only start a child

    ended = asyncio.Event()
    watch = ProcessWatch(pid, ended.set)
    try:
        await ended.wait()
    finally:
        watch.close()


class ProcessWatch:
    """Calls `ended` once, in the running event loop, when a process has ended, until `close`.

    It holds the process open, so that its id stays its own. A thread waits, for asyncio's own
    waiting for handles is private to it; the event loop does not wait for the thread.
    """

    def __init__(self, pid: int, ended: Callable[[], object]) -> None:
        """Begin to watch. Raises OSError: `winerror` is INVALID_PARAMETER if it has gone."""
        import asyncio

        self._loop = asyncio.get_running_loop()
        self._ended = ended
        self._is_closed = False
        self._lock = threading.Lock()
        self._stop: int | None = None
        """An event that ends the thread, for as long as the thread waits."""
        process = win32.open_process_handle(pid, win32.SYNCHRONIZE)
        try:
            self._stop = stop = win32.make_event()
        except BaseException:
            win32.close(process)
            raise
        threading.Thread(
            target=self._wait, args=(process, stop), daemon=True, name=f"end of process {pid}"
        ).start()

    def _wait(self, process: int, stop: int) -> None:
        has_ended = win32.wait_for_any((process, stop), win32.FOREVER) == 0
        win32.close(process)
        with self._lock:
            self._stop = None
            win32.close(stop)
        if has_ended:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(self._notify)

    def _notify(self) -> None:
        if not self._is_closed:
            self.close()
            self._ended()

    def close(self) -> None:
        """Stop watching; `ended` is not called any more. Idempotent."""
        self._is_closed = True
        with self._lock:
            if self._stop is not None:
                win32.set_event(self._stop)


def watch_process(pid: int, ended: Callable[[], object]) -> ProcessWatch | None:
    """Call `ended` in the running event loop when the process `pid` has ended, until `close`.

    Returns None if the process is one that we may not open. Raises ProcessLookupError if it does
    not exist, OSError.
    """
    try:
        return ProcessWatch(pid, ended)
    except OSError as error:
        if error.winerror == win32.ACCESS_DENIED:
            return None
        if error.winerror == win32.INVALID_PARAMETER:
            raise ProcessLookupError(f"there is no process {pid}") from error
        raise


class DeathGuard:
    """A job that ends a process, which need not be our child, when we are gone."""

    def __init__(self, pid: int, argument: str) -> None:
        """Guard the process `pid`. Raises OSError.

        `argument` is not looked at: nobody can get the id of a process that a job holds.
        """
        self._job = JobObject()
        try:
            with win32.process_handle(pid, _JOB_RIGHTS) as process:
                self._job.add(process)
        except BaseException:
            self._job.close()
            raise

    def end(self) -> None:
        """End the guard, and what it guarded, if it has not ended. Idempotent."""
        self._job.close()


def die_with_parent(argv: Sequence[str]) -> list[str]:
    """Return `argv`: it is the job of the one who starts it that ends it with its parent."""
    return list(argv)


def open_process(pid: int) -> int | None:
    """Return None: no descriptor tells when a process has ended."""
    return None


def kill_opened(process: int) -> None:
    """Kill a process opened by `open_process`."""
    raise not_yet("handles of processes")


def exit_status(process: int, limit: float = 0.0) -> int | None:
    """Return None: there are no handles of processes."""
    return None


def process_exists(pid: int) -> bool:
    """Tell whether a process `pid` of any user exists. Raises OSError."""
    try:
        with win32.process_handle(pid, win32.SYNCHRONIZE) as process:
            # A process that has ended still exists while somebody has it open.
            return not win32.has_ended(process)
    except OSError as error:
        if error.winerror == win32.ACCESS_DENIED:
            return True  # it exists, as another user's
        if error.winerror == win32.INVALID_PARAMETER:
            return False
        raise


def spawn_detached(argv: Sequence[str], log: int) -> int:
    """Start `argv` so that it outlives us, and return its process id.

    It has no console; its output goes to the descriptor `log`. Raises OSError.
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        creationflags=subprocess.DETACHED_PROCESS
        | subprocess.CREATE_NEW_PROCESS_GROUP
        | subprocess.CREATE_BREAKAWAY_FROM_JOB,
    )
    process.returncode = 0  # we do not wait for it
    return process.pid


def wait_for_child(pid: int) -> int:
    """Wait for the child `pid`."""
    raise not_yet("waiting for a child by its id")


def terminate_group(leader: int) -> None:
    """Ask the process group that `leader` leads to end."""
    raise not_yet(_GROUPS)


def kill_group(leader: int) -> None:
    """Kill the process group that `leader` leads."""
    raise not_yet(_GROUPS)


def signal_group(leader: int, number: int) -> None:
    """Send a signal to the process group that `leader` leads."""
    raise not_yet(_GROUPS)


def yield_processor() -> None:
    """Let other threads run first, for an instant."""
    win32.kernel32.SwitchToThread()


def lower_priority() -> None:
    """Give this process the lowest CPU priority."""
    win32.check(
        win32.kernel32.SetPriorityClass(
            win32.kernel32.GetCurrentProcess(), subprocess.IDLE_PRIORITY_CLASS
        )
    )


def use_idle_io() -> None:
    """Leave the disk's priority as it is."""
