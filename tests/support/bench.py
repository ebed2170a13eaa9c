"""A place where a test runs the real command line, and which shows what a run has left behind."""

import hashlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from boincvm.paths import data_directory
from support.slot import processes_with

LIMIT = 90.0
"""Seconds that a test waits for anything, at most."""
COMMAND = (sys.executable, "-m", "boincvm.cli.main")


@dataclass(frozen=True)
class Done:
    code: int
    stdout: bytes
    stderr: str

    def check_error(self, code: int, *words: str) -> None:
        """Check the exit code and that the cause, one line before any advice, has all `words`."""
        assert self.code == code, self.stderr
        lines = self.stderr.splitlines()
        causes = [line for line in lines if line.startswith("boincvm: ")]
        assert len(causes) == 1, self.stderr
        assert all(line.startswith("  ") for line in lines[lines.index(causes[0]) + 1 :])
        for word in words:
            assert word in causes[0]


@dataclass
class Bench:
    """The directories of a test: commands run in `work`; boincvm writes to the other two."""

    root: Path
    data: Path = field(default_factory=lambda: data_directory().parent)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for directory in (self.work, self.cache, self.temporary):
            directory.mkdir(parents=True)

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def temporary(self) -> Path:
        return self.root / "tmp"

    def environment(self) -> dict[str, str]:
        ours = {"XDG_CACHE_HOME": self.cache, "XDG_DATA_HOME": self.data, "TMPDIR": self.temporary}
        environment = {**os.environ, **{name: str(path) for name, path in ours.items()}}
        environment.pop("BOINCVM_HOME", None)
        return environment

    def start(
        self,
        *arguments: str | bytes,
        before: Sequence[str] = (),
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.PIPE,
        verb: str = "run",
    ) -> subprocess.Popen[bytes]:
        """Start `boincvm VERB` with `arguments`; `before` is a command that starts it."""
        process = subprocess.Popen(
            [*before, *COMMAND, verb, *arguments],
            cwd=self.work,
            env=self.environment(),
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
        )
        self.started.append(process)
        return process

    def run(
        self,
        *arguments: str | bytes,
        before: Sequence[str] = (),
        text: bytes | None = None,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        limit: float = LIMIT,
        verb: str = "run",
    ) -> Done:
        process = self.start(
            *arguments, before=before, stdin=stdin if text is None else subprocess.PIPE, verb=verb
        )
        return finish(process, text, limit=limit)

    def sh(self, script: str, *options: str, limit: float = LIMIT) -> Done:
        """Run a shell script in the guest."""
        return self.run(*options, "--", "sh", "-c", script, limit=limit)

    def machines(self) -> list[int]:
        """Return the process ids of virtual machines that were started from here."""
        return machines_beneath(self.cache)

    def machine(self) -> int:
        (pid,) = self.machines()
        return pid

    def networks(self) -> list[int]:
        """Return the process ids of QEMUs that are the network of a User-mode Linux from here.

        Their command line names no file; they run in the machine's directory, which may be gone.
        """
        found = []
        for pid in processes_with(b"qemu-system", b"hubport"):
            with suppress(FileNotFoundError, ProcessLookupError):
                if Path(f"/proc/{pid}/cwd").readlink().is_relative_to(self.cache):
                    found.append(pid)
        return found

    def left_overs(self) -> list[str]:
        """List what a run must not leave: machines, and files where it keeps them meanwhile."""
        left = [f"process {pid}" for pid in (*self.machines(), *self.networks())]
        runs = self.cache / "boincvm/runs"
        left += map(str, runs.iterdir() if runs.is_dir() else ())
        left += map(str, self.temporary.iterdir())
        left += [str(path) for path in self.work.rglob("*.part")]
        return left

    def stop_all(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait(LIMIT)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


def machines_beneath(directory: Path) -> list[int]:
    """Return the process ids of virtual machines whose files lie beneath `directory`."""
    return processes_with(b"qemu-system", os.fsencode(directory))


def finish(
    process: subprocess.Popen[bytes], text: bytes | None = None, *, limit: float = LIMIT
) -> Done:
    """Wait for the end of a process that `Bench.start` started."""
    stdout, stderr = process.communicate(text, timeout=limit)
    return Done(process.returncode, stdout or b"", stderr.decode())


def read_line(stream: IO[bytes] | None, limit: float = LIMIT) -> bytes:
    """Read one line from the unbuffered stream, and nothing that follows it."""
    assert stream is not None
    line = b""
    end = time.monotonic() + limit
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([stream], [], [], end - time.monotonic())
        assert ready, f"no line within {limit} s, only {line!r}"
        byte = os.read(stream.fileno(), 1)
        if not byte:
            break
        line += byte
    return line


def until(condition: Callable[[], object], limit: float = LIMIT) -> None:
    """Poll `condition` until it holds; for what no event announces."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"not within {limit} s"
        time.sleep(0.01)


def until_waits_in(pid: int, function: str, limit: float = LIMIT) -> None:
    """Wait until the main thread of a process waits in a kernel function with that in its name.

    Python runs the handler of a signal that comes just before a system call only after the call:
    the signal does not end it.
    """
    until(lambda: function in Path(f"/proc/{pid}/wchan").read_text(), limit)


def wait_for_end(pidfd: int, limit: float = LIMIT) -> None:
    """Wait until the process of `pidfd` has ended, and close the descriptor."""
    try:
        ready, _, _ = select.select([pidfd], [], [], limit)
        assert ready, "the process still runs"
    finally:
        os.close(pidfd)


def open_those_that_run(pids: Iterable[int]) -> list[int]:
    """Return descriptors of the processes for `wait_for_end`, but for those that have just ended.

    Below a machine some do, as a guest's programs are processes of User-mode Linux.
    """
    opened = []
    for pid in pids:
        with suppress(ProcessLookupError):
            opened.append(os.pidfd_open(pid))
    return opened


def kill(pid: int, number: int = signal.SIGKILL) -> int:
    """Send the signal; return a descriptor for `wait_for_end`."""
    pidfd = os.pidfd_open(pid)
    signal.pidfd_send_signal(pidfd, number)
    return pidfd


def digests(directory: Path) -> dict[str, str]:
    """Return the digest of every file beneath `directory`; of a link its target."""
    return {
        str(path.relative_to(directory)): f"-> {path.readlink()}"
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_symlink() or path.is_file()
    }
