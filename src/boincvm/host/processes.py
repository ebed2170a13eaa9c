"""Child processes that the kernel ends with us, awaited without a thread or a poll."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO


def quiet_environment() -> dict[str, str]:
    """The environment for a helper program: nothing of the caller's that could change what it
    does. A BOINC client, for one, prepends its own directories to LD_LIBRARY_PATH."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def find_program(name: str) -> str | None:
    """The path of the program `name`, by PATH. (`shutil.which` would bring in compressors.)"""
    for directory in os.get_exec_path():
        path = Path(directory, name)
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
    return None


def guarded(argv: Sequence[str]) -> list[str]:
    """The command with which the kernel ends `argv` when the thread that starts it dies.

    `setpriv` asks for the signal between fork and exec, where Python should not run; had we died
    before that, nobody would send it, so a shell looks whether we are still there.
    """
    guard = find_program("setpriv")
    if guard is None:
        return [*argv]
    parent = str(os.getpid())
    return [guard, "--pdeathsig", "KILL", "--", "/bin/sh", "-c", _IF_WE_LIVE, parent, *argv]


_IF_WE_LIVE = 'test "$PPID" = "$0" && exec "$@"'


ASKING_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class ChildProcess:
    """A running child. Linux: the kernel kills it when the thread that started it dies.

    It is deaf to ASKING_SIGNALS: a service manager that stops everything sends them to all
    processes alike, and what is to be saved must outlive them until we have saved it.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        directory: Path,
        descriptors: Sequence[int] = (),
        stderr: BinaryIO | int = subprocess.DEVNULL,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts `argv` in a session of its own, so that a terminal's Ctrl-C passes it by.

        `descriptors` are inherited under their own numbers. Raises OSError.
        """
        former = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING_SIGNALS)  # which exec keeps
        try:
            process = subprocess.Popen(
                guarded(argv),
                cwd=directory,
                env=dict(quiet_environment() if environment is None else environment),
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, former)
        process.returncode = 0  # it is we who wait for it
        self.pid = process.pid
        self._status: int | None = None

    def _wait(self, options: int) -> int | None:
        if self._status is None:
            try:
                pid, status = os.waitpid(self.pid, options)
            except ChildProcessError:
                pid, status = self.pid, 0  # we were started deaf to SIGCHLD: nobody can tell
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    @property
    def is_running(self) -> bool:
        return self._wait(os.WNOHANG) is None

    def kill(self) -> None:
        """Ends it now; a stopped process too."""
        if self.is_running:
            os.kill(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """Ends it, and waits until the kernel has: an instant."""
        self.kill()
        self._wait(0)

    async def wait(self) -> int:
        """Its exit status; minus the signal's number where one killed it."""
        if self._status is None:
            await _readable_pidfd(self.pid)
        status = self._wait(0)
        if status is None:
            raise RuntimeError("a process that has ended has no status")
        return status


async def _readable_pidfd(pid: int) -> None:
    """Until the process `pid`, a child not yet waited for, has ended."""
    import asyncio  # which whoever only starts a child does without

    loop = asyncio.get_running_loop()
    descriptor = os.pidfd_open(pid)
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def run_quickly(argv: Sequence[str], *, timeout: float = 30.0) -> str:
    """Runs a short helper program and returns its output.

    Raises subprocess.CalledProcessError (with `stderr`), subprocess.TimeoutExpired, OSError.
    """
    done = subprocess.run(
        argv,
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        start_new_session=True,  # a terminal's Ctrl-C is for us to answer
        timeout=timeout,
        env=quiet_environment(),
    )
    return done.stdout
