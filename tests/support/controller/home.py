"""A user of the controller, who gives commands."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any

from boincvm.paths import data_directory
from support.killed_on_failure import killed_on_failure
from support.on_terminal import OnTerminal, on_terminal

LIMIT = 60
"""Seconds that a command may take."""
BOINCVM = (sys.executable, "-m", "boincvm.cli.main")


class Home:
    """A user's own home, with the images of this host."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "data").mkdir(parents=True)
        (directory / "data" / "images").symlink_to(data_directory() / "images")
        self.environment = {**os.environ, "BOINCVM_HOME": str(directory), "TERM": "linux"}

    @contextmanager
    def controller(self) -> Iterator[None]:
        with killed_on_failure(
            subprocess.Popen(
                [*BOINCVM, "controller"], env=self.environment, stderr=subprocess.PIPE, text=True
            )
        ) as process:
            assert process.stderr is not None
            try:
                line = process.stderr.readline()
                assert "the controller is running" in line, line
                yield
            finally:
                self.run("rm", "--force", "**", code=None)
            process.send_signal(signal.SIGTERM)
            _, output = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, output
        assert "0 machines keep running" in output

    def run(
        self, *arguments: str, code: int | None = 0, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [*BOINCVM, *arguments],
            env=self.environment,
            cwd=self.directory,
            input=stdin,
            capture_output=True,
            timeout=LIMIT,
            check=False,
        )
        assert code in (None, done.returncode), done.stderr.decode()
        return done

    def begin(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a command with pipes for its streams."""
        return subprocess.Popen(
            [*BOINCVM, *arguments],
            env=self.environment,
            cwd=self.directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def call_json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)

    def shell(self, *arguments: str) -> AbstractAsyncContextManager[OnTerminal]:
        return on_terminal(*BOINCVM, "shell", *arguments, environment=self.environment)

    def state(self, vm: str) -> str:
        (only,) = self.call_json("ls", vm)["vms"]
        return str(only["state"])

    def processes(self) -> list[str]:
        """Return the command lines of all processes that belong to this home."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes()
                around = (process / "environ").read_bytes()
            except OSError:  # it has just ended
                continue
            if os.fsencode(self.directory) in words + around:
                found.append(words.replace(b"\0", b" ").decode())
        return found
