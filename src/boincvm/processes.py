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
        # setpriv asks for the signal between fork and exec, where Python must not run.
        guard = find_program("setpriv")
        prefix = [guard, "--pdeathsig", "KILL", "--"] if guard else []
        former = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING_SIGNALS)  # which exec keeps
        try:
            self._process = subprocess.Popen(
                [*prefix, *argv],
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

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Ends it now; a stopped process too."""
        if self.is_running:
            self._process.send_signal(signal.SIGKILL)

    def end(self) -> None:
        """Ends it, and waits until the kernel has: an instant."""
        self.kill()
        self._process.wait()

    async def wait(self) -> int:
        """Its exit status; minus the signal's number where one killed it."""
        if self._process.returncode is None:
            await _readable_pidfd(self._process.pid)
        return self._process.wait()


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


def fill_closed_descriptors() -> None:
    """Descriptors 0 to 2 that are closed become /dev/null: what is opened later would take
    their numbers, and a program's output would go there."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


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
