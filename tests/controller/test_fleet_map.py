"""`boincvm map --selector`: real processes of a controller, two hosts as guests, and sweeps."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from boincvm.exit_codes import ExitCode
from support.killed_on_failure import killed_on_failure

pytestmark = pytest.mark.timeout(120)
BOINCVM = (sys.executable, "-m", "boincvm.cli.main")
ROOT = ("--allow-root",) if os.geteuid() == 0 else ()
WAIT = "trap 'echo stopped; exit 3' INT; echo begun; while :; do sleep 0.05; done"


class Fleet:
    """A controller, with the guests that `join` adds."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.directory = directory
        self.here = directory / "here"
        self.here.mkdir()
        self._stack = stack
        self.environment = {**os.environ, "BOINCVM_HOME": str(directory / "home")}
        port = self._start("controller", "--bus", "127.0.0.1:0", until="guests reach the bus")
        invited = self.run("invite", "lab").stdout
        (directory / "passcode").write_text(invited)
        self._broker = ("--broker", f"stomp://lab@127.0.0.1:{port.split()[-1]}")
        words = ("events", "--json", "--all", "--after", "0", "--follow")
        self._events = self.begin(*words, stdout=subprocess.PIPE)
        self.guests: dict[str, subprocess.Popen[str]] = {}

    def begin(self, *words: str, **streams: int) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*BOINCVM, *words],
            env=self.environment,
            cwd=self.here,
            stdin=subprocess.DEVNULL,
            text=True,
            **streams,  # type: ignore[call-overload]
        )
        self._stack.callback(_close, process)
        return process

    def _start(self, *words: str, until: str) -> str:
        process = self.begin(*words, stderr=subprocess.PIPE)
        self.last = process
        seen = []
        for line in process.stderr or ():
            if until in line:
                return line
            seen.append(line)
        raise AssertionError("".join(seen))

    def join(self, name: str) -> Path:
        """Let a host join as a guest; return its work directory."""
        work = self.directory / f"work-{name}"
        options = (*ROOT, "--id", name, "--label", "site=cern", "--directory", str(work))
        passcode = ("--passcode-file", str(self.directory / "passcode"))
        self._start("guest", *self._broker, *passcode, *options, until="Ctrl-C ends it")
        self.guests[name] = self.last
        self.until("vm_load", name)
        return work

    def until(self, kind: str, vm: str) -> None:
        for line in self._events.stdout or ():
            event = json.loads(line)
            if (event.get("kind"), event.get("vm")) == (kind, vm):
                return
        raise AssertionError("the events have ended")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*BOINCVM, *words],
            env=self.environment,
            cwd=self.here,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def sweep(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run("map", "--selector", "site=cern", *words)


def _close(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait(60)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(tmp_path, stack)


def test_a_sweep_over_two_hosts(fleet: Fleet) -> None:
    works = [fleet.join("lab.1"), fleet.join("lab.2")]
    (works[0] / "mine").write_text("it stays")
    script = fleet.here / "sim.sh"
    script.write_text(
        '#!/bin/sh\nread line; echo "$line $1" | tee out; mkdir -p sub; cp data/x sub/a.txt\n'
        'echo "$COLOUR" >&2; ls >names; cp names count; exit "$1"\n'
    )
    script.chmod(0o755)
    (fleet.here / "data").mkdir()
    (fleet.here / "data/x").write_text("from the host")
    (fleet.here / "words").write_text("hello\n")
    options = ["--input", "data", "--stdin", "words", "--env", "COLOUR=blue-{}"]
    options += ["--output", "out:deep/out", "--output", "sub/*.txt", "--output", "count", "-k"]
    done = fleet.sweep(*options, "--", "./sim.sh", "{}", ":::", "0", "3", "0")
    assert done.returncode == 1, done.stderr
    assert done.stdout == "hello 0\nhello 3\nhello 0\n"
    results = fleet.here / "results"
    for number in "123":
        assert (results / number / "sub/a.txt").read_text() == "from the host"
        assert (results / number / "count").read_text().split() == [
            "data",
            "names",
            "out",
            "sim.sh",
            "sub",
        ]
        assert (results / number / "stdout").read_text() == (
            results / number / "deep/out"
        ).read_text()
    assert (results / "2/stderr").read_text() == "blue-3\n"
    rows = [line.split("\t") for line in (results / "joblog").read_text().splitlines()[1:]]
    assert {row[1] for row in rows} == {"lab.1", "lab.2"}
    assert {row[0]: row[6] for row in rows} == {"1": "0", "2": "3", "3": "0"}
    again = fleet.sweep(*options, "--resume", "--", "./sim.sh", "{}", ":::", "0", "3", "0", "1")
    assert (again.returncode, again.stdout) == (1, "hello 1\n")
    printed = fleet.sweep("--json", "--", "cat", "none", ":::", "x")
    item, summary = map(json.loads, printed.stdout.splitlines())
    assert (item["exit_code"], item["host"][:4], summary["failed"]) == (1, "lab.", 1)
    assert "none" in item["stderr"]
    # Nothing is left in the machines, and what was there before stays.
    assert [sorted(path.name for path in work.iterdir()) for work in works] == [["mine"], []]


def test_outputs_that_are_missing_and_programs(fleet: Fleet) -> None:
    fleet.join("lab")
    missing = fleet.sweep("--output", "a", "--output", "b*", "--", "true", ":::", "x")
    assert missing.returncode == 1
    assert "a" in missing.stderr
    assert "output b*: nothing matches it" in missing.stderr
    link = fleet.sweep(
        *("--results", "link", "--output", "d", "--output", "d/x"),
        *("--", "sh", "-c", "mkdir e; ln -s e d; echo x >e/x"),
        *(":::", "x"),
    )
    assert link.returncode == 1
    none = fleet.sweep("--", "no-such-program", ":::", "x")
    assert none.returncode == 1
    assert "failed (127)" in none.stderr
    late = fleet.sweep("--time-limit", "0.2", "--", "sleep", ":::", "100")
    assert "failed (197)" in late.stderr


def test_ctrl_c_ends_the_programs_and_leaves_nothing(fleet: Fleet) -> None:
    work = fleet.join("lab")
    command = (
        "map",
        "--selector",
        "lab",
        "--results",
        "r",
        "--",
        "sh",
        "-c",
        WAIT,
        ":::",
        "1",
        "2",
    )
    sweep = fleet.begin(*command, stderr=subprocess.PIPE)
    path = fleet.here / "r/1/stdout"
    wait_for_text(path, "begun")
    sweep.send_signal(signal.SIGINT)
    _, errors = sweep.communicate(timeout=60)
    assert sweep.returncode == ExitCode.INTERRUPTED, errors
    assert path.read_text() == "begun\nstopped\n"
    assert "2 not run" in errors
    assert list(work.iterdir()) == []


def wait_for_text(path: Path, text: str) -> None:
    """Wait until a file has the text; the test's time limit is that of the wait."""
    with killed_on_failure(
        subprocess.Popen(
            ["tail", "-F", "-n", "+1", str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    ) as tail:
        try:
            assert any(text in line for line in tail.stdout or ())
        finally:
            tail.kill()  # the block waits for its end, also after a test's time limit


def test_a_machine_that_starts_again(fleet: Fleet) -> None:
    """What ran in it is lost, and its item has failed: it may be the reason."""
    fleet.join("lab")
    script = "echo begun; exec sleep 1000"
    command = ("map", "--selector", "lab", "--results", "r", "--", "sh", "-c", script, ":::", "1")
    sweep = fleet.begin(*command, stderr=subprocess.PIPE)
    wait_for_text(fleet.here / "r/1/stdout", "begun")
    fleet.guests["lab"].kill()
    fleet.guests["lab"].wait(60)
    fleet.join("lab")
    _, errors = sweep.communicate(timeout=60)
    assert sweep.returncode == 1, errors
    assert "failed (218)" in errors


def test_what_is_refused(fleet: Fleet) -> None:
    for options, why in (
        (["--selector", "all", "--memory", "1G"], "found --memory with --selector"),
        (["--selector", "all", "--driver", "qemu"], "found --driver with --selector"),
        (["--controller", "unix:/x"], "found --controller without --selector"),
        (["--selector", "all"], "no machine that 'all' matches runs"),
        (["--selector", "no,,"], "selector"),
    ):
        refused = fleet.run("map", *options, "--", "true", ":::", "1")
        assert refused.returncode == ExitCode.USAGE, refused.stderr
        assert why in refused.stderr
