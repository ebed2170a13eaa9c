"""The controller's command line as a person uses it: a machine's life in a day."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from boincvm.exit_codes import ExitCode
from boincvm.paths import data_directory
from support.on_terminal import on_terminal, session

pytestmark = pytest.mark.timeout(280)
LIMIT = 60
BOINCVM = (sys.executable, "-m", "boincvm.cli.main")


class Home:
    """A user's own, with the images of this host."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "data").mkdir(parents=True)
        (directory / "data" / "images").symlink_to(data_directory() / "images")
        self.environment = {**os.environ, "BOINCVM_HOME": str(directory), "TERM": "linux"}

    @contextmanager
    def controller(self) -> Iterator[None]:
        process = subprocess.Popen(
            [*BOINCVM, "controller"], env=self.environment, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            assert "the controller runs" in line, line
            yield
        finally:
            self.run("rm", "--force", "**", code=None)
            process.send_signal(signal.SIGTERM)
            said = process.stderr.read()
            process.stderr.close()
            assert process.wait(LIMIT) == 0, said
        assert "0 machines run on" in said

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

    def told(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)

    def shell(self, *arguments: str):
        return on_terminal(*BOINCVM, "shell", *arguments, environment=self.environment)

    def state(self, vm: str) -> str:
        (only,) = self.told("ls", vm)["vms"]
        return only["state"]

    def processes(self) -> list[str]:
        """Command lines of all that belong to this home."""
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


@pytest.fixture
def home(base_image: Path, tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "home")
    with made.controller():
        yield made
    assert made.processes() == []
    assert list((made.directory / "data" / "controller" / "machines").iterdir()) == []


async def test_a_machine_from_the_command_line(home: Home) -> None:
    home.run("create", "web.1", "--memory", "256M", "--label", "site=here")
    assert home.state("site=here") == "powered_off"
    async with home.shell("web.1") as terminal:
        await terminal.until("the machine web.1 is powered off")
        await terminal.until("boincvm start web.1")
        assert await terminal.code() == ExitCode.USAGE
    assert home.run("start", "web.1").stdout == b"web.1 is running\n"
    assert home.state("web.1") == "running"
    programs(home)
    copies(home)
    snapshots(home)
    async with home.shell("web.*") as terminal:
        await session(terminal)
    home.run("stop", "site=here")
    assert home.state("web.1") == "powered_off"
    events = [json.loads(line) for line in home.run("events", "--json").stdout.splitlines()]
    assert {"vm_state", "command_started", "command_ended"} <= {one["kind"] for one in events}
    home.run("rm", "web.1")
    assert b"there are no machines yet" in home.run("ls").stdout


async def test_a_shell_outlives_its_machine_s_sleep(home: Home) -> None:
    home.run("create", "web.1", "--memory", "256M")
    home.run("start", "web.1")
    async with home.shell("web.1") as terminal:
        await terminal.until("# ")
        home.run("suspend", "web.1")
        terminal.type("\r~.")
        await terminal.until("left web.1")
        assert await terminal.code() == ExitCode.HUNG_UP
        home.run("resume", "web.1")
    assert b"no command runs" in home.run("ps").stdout
    assert b"/bin/bash" not in home.run("exec", "web.1", "--", "ps", "ax").stdout
    async with home.shell("web.1") as terminal:
        terminal.type("WORD=here\r")
        for sleep, wake in ((["suspend"], "resume"), (["suspend", "--to-disk"], "start")):
            terminal.type(f"echo $WORD-{wake}-1\r")
            await terminal.until(f"here-{wake}-1")
            home.run(*sleep, "web.1")
            terminal.type(f"echo $WORD-{wake}-2\r")
            home.run(wake, "web.1")
            await terminal.until(f"here-{wake}-2")
        home.run("snapshot", "take", "web.1")
        terminal.type("echo $WORD-3\r")
        await terminal.until("here-3")
        # What runs after a restore is the guest of then, whose words nobody hears any more.
        home.run("snapshot", "restore", "web.1")
        await terminal.until("the machine has ended")
        assert await terminal.code() == ExitCode.GUEST_DIED
        assert terminal.modes() == terminal.modes_before


def programs(home: Home) -> None:
    done = home.run(
        "exec", "web.1", "--", "sh", "-c", "cat; echo no >&2; exit 3", stdin=b"in", code=3
    )
    assert (done.stdout, done.stderr) == (b"in", b"no\n")
    once = (
        "exec",
        "--id",
        "mine",
        "web.1",
        "--",
        "sh",
        "-c",
        "echo ran >>/tmp/runs; cat /tmp/runs",
    )
    assert home.run(*once[:1], "--detach", *once[1:]).stdout == b"mine\n"
    for _ in range(2):
        assert home.run(*once, stdin=b"not read").stdout == b"ran\n"
    done = home.run("exec", "web.1", "--", "no-such-program", code=127)
    assert b"no-such-program" in done.stderr


def copies(home: Home) -> None:
    (home.directory / "tree" / "deep").mkdir(parents=True)
    (home.directory / "tree" / "deep" / "file").write_bytes(os.urandom(300_000))
    (home.directory / "tree" / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (home.directory / "tree" / "run.sh").chmod(0o755)
    then = 1_234_567_890_123_456_789
    for name in ("deep/file", "deep", "."):
        os.utime(home.directory / "tree" / name, ns=(0, then))
    home.run("cp", "tree", "web.1:here")
    assert home.run("exec", "web.1", "--", "here/run.sh").stdout == b"ran\n"
    home.run("cp", "web.1:here", "back")
    home.run("cp", "web.1:here/deep/file", "file")
    sent = (home.directory / "tree" / "deep" / "file").read_bytes()
    assert (home.directory / "back" / "deep" / "file").read_bytes() == sent
    assert (home.directory / "file").read_bytes() == sent
    assert os.access(home.directory / "back" / "run.sh", os.X_OK)
    for name in ("back/deep/file", "back/deep", "back", "file"):
        assert (home.directory / name).stat().st_mtime_ns == then, name
    home.run("cp", "file", "web.1:here/again")
    times = home.run("exec", "web.1", "--", "stat", "-c", "%.9Y", "here/deep", "here/again").stdout
    assert times == b"1234567890.123456789\n" * 2


def snapshots(home: Home) -> None:
    taken = home.told("snapshot", "take", "web.1", "first", "--description", "with files")
    assert taken["outcomes"]["web.1"]["snapshot"] == "first"
    home.run("exec", "web.1", "--", "rm", "-r", "here")
    assert home.run("snapshot", "restore", "web.1").stdout == b"web.1 goes on as in first\n"
    assert home.run("exec", "web.1", "--", "ls").stdout == b"here\n"
    (listed,) = home.told("snapshot", "ls", "web.1")["snapshots"]
    assert (listed["name"], listed["description"]) == ("first", "with files")
    # The next one needs nothing of one that was removed.
    home.run("snapshot", "take", "web.1", "second")
    home.run("snapshot", "rm", "web.1", "second")
    home.run("snapshot", "rm", "web.1", "first")
    assert b"has no snapshots" in home.run("snapshot", "ls", "web.1").stdout
    home.run("snapshot", "take", "web.1", "third")
    assert home.run("exec", "web.1", "--", "ls").stdout == b"here\n"
