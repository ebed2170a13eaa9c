"""The controller's command line as a user uses it: a machine's life in a day."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from boincvm.exit_codes import ExitCode
from support.bench import until
from support.controller.home import Home
from support.on_terminal import session

pytestmark = pytest.mark.timeout(280)


@pytest.fixture
def home(base_image: Path, tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "home")
    with made.controller():
        yield made
    until(lambda: not made.processes())  # the kernel may still be ending some
    assert list((made.directory / "data" / "controller" / "machines").iterdir()) == []


async def test_a_machine_from_the_command_line(home: Home) -> None:
    script = home.directory / "set-up.sh"
    script.write_text("echo once >>/etc/set-up\n")
    options = ("--memory", "256M", "--label", "site=here", "--first-boot", str(script))
    home.run("create", "web.1", *options)
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
    clones(home)
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
    until(lambda: b"no command is running" in home.run("ps").stdout)
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

    # Anywhere in the guest; and from several machines, each to a directory of its own.
    home.run("cp", "file", "web.1:/etc/new/file")
    home.run("cp", "web.*:/etc/new", "all")
    assert (home.directory / "all/web.1/new/file").read_bytes() == sent
    left = home.run("exec", "web.1", "--", "ls", "-A").stdout
    assert left == b"here\n"  # not what was copied through the work directory
    missing = home.run("cp", "web.1:/no/file", "x", code=ExitCode.OUTPUT_FILE)
    assert b"/no/file" in missing.stderr


def clones(home: Home) -> None:
    assert b"web.2 has been created" in home.run("clone", "web.1", "web.2").stdout
    home.run("start", "web.2")
    found = home.run("exec", "web.2", "--", "cat", "/etc/set-up", "/etc/hostname").stdout
    assert found == b"once\nweb-2\n"
    home.run("rm", "--force", "web.2")
    # A first-boot script that fails leaves nothing: the next start is a first one again.
    script = home.directory / "fails.sh"
    script.write_text("ls /etc/tried; touch /etc/tried; exit 3\n")
    home.run("create", "web.3", "--memory", "256M", "--first-boot", str(script))
    for _ in range(2):
        failed = home.run("start", "web.3", code=ExitCode.HOST).stderr
        assert b"its first-boot script failed: " in failed
        assert b"No such file" in failed
    home.run("rm", "web.3")
    home.run("create", "--count", "2", "--memory", "256M", "many")
    assert home.run("ls", "--quiet", "many.*").stdout == b"many.1\nmany.2\n"
    home.run("rm", "many.*")


def snapshots(home: Home) -> None:
    taken = home.call_json("snapshot", "take", "web.1", "first", "--description", "with files")
    assert taken["outcomes"]["web.1"]["snapshot"] == "first"
    home.run("exec", "web.1", "--", "rm", "-r", "here")
    assert home.run("snapshot", "restore", "web.1").stdout == b"web.1 was restored from first\n"
    assert home.run("exec", "web.1", "--", "ls").stdout == b"here\n"
    (listed,) = home.call_json("snapshot", "ls", "web.1")["snapshots"]
    assert (listed["name"], listed["description"]) == ("first", "with files")
    # The next one needs nothing of one that was removed.
    home.run("snapshot", "take", "web.1", "second")
    home.run("snapshot", "rm", "web.1", "second")
    home.run("snapshot", "rm", "web.1", "first")
    assert b"has no snapshots" in home.run("snapshot", "ls", "web.1").stdout
    home.run("snapshot", "take", "web.1", "third")
    assert home.run("exec", "web.1", "--", "ls").stdout == b"here\n"
