"""The host's end of the status channel, as a test makes it."""

import os
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LIMIT = 60.0
"""Seconds that a program may take."""


@dataclass(frozen=True)
class Result:
    code: int
    stdout: str
    stderr: str
    lines: list[str]

    def values_of(self, name: str) -> list[str]:
        """Return what follows `name` in the lines that begin with it."""
        return [line.partition(" ")[2] for line in self.lines if line.split(" ")[0] == name]


def run(
    command: Sequence[str | bytes | Path],
    directory: Path,
    *,
    status_channel: bool = True,
    environment: dict[str, str] | None = None,
) -> Result:
    """Run a program in `directory` to its end; record every line that it sends."""
    fifo = directory.parent / "status-channel"
    context = {**os.environ, **(environment or {})}
    context.pop("BOINCVM_STATUS_CHANNEL", None)
    if not status_channel:
        return _run(command, directory, context, [])
    fifo.unlink(missing_ok=True)
    os.mkfifo(fifo)
    context["BOINCVM_STATUS_CHANNEL"] = str(fifo)
    holder = os.open(fifo, os.O_RDWR)  # until it closes this, the reader sees no end
    reader = os.open(fifo, os.O_RDONLY)
    pieces: list[bytes] = []
    thread = threading.Thread(target=_read, args=(reader, pieces))
    thread.start()
    try:
        received = _run(command, directory, context, [])
    finally:
        os.close(holder)
        thread.join(LIMIT)
    received.lines.extend(b"".join(pieces).decode().splitlines())
    return received


def _read(descriptor: int, pieces: list[bytes]) -> None:
    with open(descriptor, "rb", buffering=0) as file:
        while piece := file.read(4096):
            pieces.append(piece)


def _run(
    command: Sequence[str | bytes | Path],
    directory: Path,
    environment: dict[str, str],
    lines: list[str],
) -> Result:
    done = subprocess.run(
        command,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr, lines)
