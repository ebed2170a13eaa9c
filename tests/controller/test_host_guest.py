"""A host as a guest: real processes of the controller, the guest and the command line."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from benchmarks.rabbitmq import LOGIN, PASSCODE

from boincvm.exit_codes import ExitCode
from boincvm.guestlink.terminal.protocol import Size, shell_argv
from boincvm.host.process_tree import descendants
from support.bus.brokers import running_broker
from support.certificates import Authority
from support.held_port import held_port
from support.odd_start import STATE, ProcessState, clean, state

pytestmark = pytest.mark.timeout(240)
BOINCVM = (sys.executable, "-m", "boincvm.cli.main")
ROOT = ("--allow-root",) if os.geteuid() == 0 else ()
STAYS = "(setsid sh -c 'trap \"\" TERM; echo; while :; do sleep 0.01; done' &); echo; sleep 99"


class Process:
    """A boincvm process of which the lines of one stream are read."""

    def __init__(
        self, home: Path, *words: str, reads: str = "stderr", before: Sequence[str] = ()
    ) -> None:
        self.started = subprocess.Popen(
            [*before, *BOINCVM, *words],
            env={**os.environ, "BOINCVM_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            text=True,
            **{reads: subprocess.PIPE},  # type: ignore[call-overload]
        )
        self._lines = getattr(self.started, reads)

    def until(self, words: str) -> str:
        """Return the first line that contains the words; the test's own time limit is that of all
        waits."""
        seen = []
        for line in self._lines:
            if words in line:
                return str(line)
            seen.append(line)
        raise AssertionError("".join(seen))

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.started.send_signal(number)
        rest = self._lines.read()
        return self.started.wait(60), rest

    def ends_well(self, number: int = signal.SIGTERM) -> None:
        """Send the signal, and check that the process ends with 0."""
        code, rest = self.end(number)
        assert code == 0, rest

    def close(self) -> None:
        if self.started.poll() is None:
            self.started.kill()
        self.started.wait(60)
        self._lines.close()


class Bench(NamedTuple):
    """A place for a controller and guests.

    broker: how guests reach the bus. again: options for a controller that replaces this one.
    """

    directory: Path
    broker: tuple[str, ...]
    events: Process
    controller: Process
    again: tuple[str, ...] = ()

    def guest(self, *options: str, before: Sequence[str] = ()) -> Process:
        words = ("guest", *self.broker, *ROOT, *options)
        made = Process(self.directory / "there", *words, before=before)
        made.until("Ctrl-C ends it")
        return made

    def boincvm(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return run_boincvm(self.directory, *words, stdin=stdin)

    @contextmanager
    def runs(self, vm: str) -> Iterator[None]:
        """Run STAYS in the guest."""
        words = ("exec", vm, "--", "sh", "-c", STAYS)
        running = Process(self.directory / "here", *words, reads="stdout")
        try:
            for _ in range(2):  # then the shell between the two has ended
                running.until("\n")
            yield
        finally:
            running.close()

    def until(self, kind: str) -> None:
        self.events.until(f'"kind": "{kind}"')


def run_boincvm(directory: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BOINCVM, *words],
        env={**os.environ, "BOINCVM_HOME": str(directory / "here")},
        cwd=directory,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def controller(directory: Path, *options: str) -> Iterator[tuple[Process, Process]]:
    """Return a controller and its events."""
    home = directory / "here"
    with ExitStack() as stack:
        running = Process(home, "controller", *options)
        stack.callback(running.close)
        running.until("Ctrl-C ends it")
        words = ("events", "--json", "--all", "--after", "0", "--follow")
        events = Process(home, *words, reads="stdout")
        stack.callback(events.close)
        yield running, events
        if running.started.poll() is None:
            running.ends_well(signal.SIGINT)


@pytest.fixture
def invited(tmp_path: Path) -> Iterator[Bench]:
    """Invite to the embedded broker, with TLS."""
    authority = Authority(tmp_path, "authority")
    pair = authority.sign("bus")
    safe = ("--bus-certificate", pair.certificate, "--bus-key", pair.key)
    with (
        held_port() as port,
        controller(tmp_path, "--bus", f"127.0.0.1:{port}", *safe) as (running, events),
    ):
        running.until("guests reach the bus")
        reported = run_boincvm(tmp_path, "invite", "lab")
        assert "boincvm guest" in reported.stderr
        (tmp_path / "passcode").write_text(reported.stdout)
        broker = ("--broker", f"stomp://lab@127.0.0.1:{port}", "--passcode-file")
        more = (str(tmp_path / "passcode"), "--broker-ca", authority.pair.certificate)
        again = ("--bus", f"127.0.0.1:{port}", *safe)
        yield Bench(tmp_path, (*broker, *more), events, running, again)


@contextmanager
def all_end(process: int) -> Iterator[None]:
    """Check that within the block, or soon after, all processes below `process` end."""
    with ExitStack() as stack:
        ends = []
        for pid in descendants(process):
            with suppress(ProcessLookupError):  # a short sleep of a script
                ends.append(os.pidfd_open(pid))
                stack.callback(os.close, ends[-1])
        assert len(ends) >= 3
        yield
        for descriptor in ends:
            assert select.select([descriptor], [], [], 30)[0]


def test_a_guest_that_was_started_oddly(invited: Bench) -> None:
    """With `nohup boincvm guest … &` in a script its programs and shells have default signals;
    signals that it was to ignore do not end it, others do."""
    odd = ProcessState(ignored=(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD))
    guest = invited.guest(before=odd.before)
    try:
        invited.until("vm_load")
        assert state(invited.boincvm("exec", "lab", "--", "sh", "-c", STATE).stdout) == clean(0o022)
        script = f"{STATE.removeprefix('exec ')}; kill -INT $$; echo deaf"
        shell = subprocess.Popen(
            [*BOINCVM, "exec", "lab", "--", *shell_argv(Size(), ("sh", "-c", script))],
            env={**os.environ, "BOINCVM_HOME": str(invited.directory / "here")},
            stdin=subprocess.PIPE,  # which stays open: else the shell is hung up
            stdout=subprocess.PIPE,
            text=True,
        )
        with shell:
            assert shell.stdout is not None
            assert state(shell.stdout.read()) == clean(0o022)
        assert shell.returncode == 128 + signal.SIGINT
        (invited.directory / "list").write_text("1\n2\n")
        for option, found in (("-n", "1\n2\n"), ("--timeout=60", "1\n")):
            loop = f'while read x; do "$@" exec {option} lab -- echo $x; done <list'
            done = subprocess.run(
                ["bash", "-c", loop, "bash", *BOINCVM],
                env={**os.environ, "BOINCVM_HOME": str(invited.directory / "here")},
                cwd=invited.directory,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.stdout == found
            assert ("boincvm exec -n" in done.stderr) is (option != "-n")
        for number in odd.ignored:
            guest.started.send_signal(number)
        assert invited.boincvm("exec", "lab", "--", "echo", "there").stdout == "there\n"
        guest.ends_well()
    finally:
        guest.close()


def test_a_host_by_invitation(invited: Bench) -> None:
    guest = invited.guest("--label", "site=cern", "--directory", str(invited.directory / "work"))
    try:
        invited.until("vm_load")
        (vm,) = json.loads(invited.boincvm("ls", "--json").stdout)["vms"]
        assert (vm["id"], vm["state"], vm["presence"], vm["is_local"]) == (
            "lab", "running", "present", False,
        )  # fmt: skip
        assert vm["labels"]["site"] == "cern"
        assert vm["memory_used"] > 0

        run = ("exec", "--input", "site=cern", "--", "sh", "-c", "cat; pwd; exit 3")
        done = invited.boincvm(*run, stdin="hi\n")
        assert (done.returncode, done.stdout) == (3, f"hi\n{invited.directory}/work\n")
        missing = invited.boincvm("exec", "lab", "--", "nosuch")
        assert missing.returncode == ExitCode.NO_SUCH_PROGRAM
        assert "check the guest's PATH" in missing.stderr
        assert invited.boincvm("exec", "lab", "--", "/").returncode == ExitCode.CANNOT_EXECUTE

        (invited.directory / "tree/a").mkdir(parents=True)
        (invited.directory / "tree/a/file").write_text("deep" * 100_000)
        times = {"ns": (0, 1_234_567_890_123_456_789)}
        os.utime(invited.directory / "tree/a/file", **times)
        os.utime(invited.directory / "tree/a", **times)
        assert invited.boincvm("cp", "tree", "lab:there").returncode == 0
        assert (invited.directory / "work/there/a/file").read_text() == "deep" * 100_000
        assert invited.boincvm("cp", "lab:there/a/file", "back").returncode == 0
        assert (invited.directory / "back").read_text() == "deep" * 100_000
        for name in ("work/there/a/file", "work/there/a", "back"):
            assert (invited.directory / name).stat().st_mtime_ns == times["ns"][1]
        (invited.directory / "work/out").symlink_to("/etc")
        assert invited.boincvm("cp", "lab:out/passwd", "stolen").returncode == ExitCode.OUTPUT_FILE

        for verb in (("stop",), ("suspend",), ("suspend", "--to-disk"), ("start",), ("rm",)):
            refused = invited.boincvm(*verb, "lab")
            assert refused.returncode == ExitCode.USAGE
            assert "lab is not a machine of the controller" in refused.stderr
        assert guest.end() == (0, "the guest lab has ended, with everything that it started\n")
        invited.until("guest_left")
    finally:
        guest.close()


def test_killed_and_back(invited: Bench) -> None:
    """Its commands are lost, and reported as such; the new life has nothing of them."""
    guest = invited.guest("--id", "lab.1")
    try:
        invited.until("guest_found")
        with invited.runs("lab.1"), all_end(guest.started.pid):
            guest.end(signal.SIGKILL)
        guest.close()
        guest = invited.guest("--id", "lab.1")
        invited.until("command_ended")
        (reported,) = json.loads(invited.boincvm("ps", "--all", "--json").stdout)["commands"]
        assert reported["answers"]["lab.1"]["state"] == "lost"
        done = invited.boincvm("exec", "lab.1", "--", "sh", "-c", "echo again")
        assert (done.returncode, done.stdout) == (0, "again\n")
    finally:
        guest.close()


def test_ended_while_programs_run(invited: Bench) -> None:
    """They are asked to end, then killed; the controller is notified of their end, and nothing is
    left."""
    guest = invited.guest()
    try:
        invited.until("guest_found")
        with invited.runs("lab"), all_end(guest.started.pid):
            guest.ends_well()
        invited.until("command_ended")
        (reported,) = json.loads(invited.boincvm("ps", "--all", "--json").stdout)["commands"]
        assert reported["answers"]["lab"]["state"] == "ended"
        assert reported["answers"]["lab"]["signal"] == signal.SIGTERM
        assert "no machines yet" in invited.boincvm("ls").stdout
    finally:
        guest.close()


def test_the_controller_is_killed_and_comes_back(invited: Bench) -> None:
    """The guest reconnects automatically; a command that ran meanwhile has run once."""
    work = invited.directory / "work"
    guest = invited.guest("--directory", str(work))
    try:
        invited.until("guest_found")
        script = "echo once >>file; until [ -e go ]; do sleep 0.01; done; echo done"
        run = ("exec", "--detach", "--id", "7", "lab", "--", "sh", "-c", script)
        invited.boincvm(*run)
        invited.controller.end(signal.SIGKILL)
        guest.until("has closed the connection")
        with controller(invited.directory, *invited.again) as (_, events):
            (work / "go").touch()
            events.until('"kind": "command_ended"')
            assert invited.boincvm(*run).stdout == "7\n"
            done = invited.boincvm("exec", "--id", "7", "lab", "--", "sh", "-c", script)
            assert (done.returncode, done.stdout) == (0, "done\n")
            assert (work / "file").read_text() == "once\n"
            guest.until("the broker is there again")
            guest.ends_well()
    finally:
        guest.close()


@pytest.mark.parametrize("kind", ["rabbitmq", "activemq"])
def test_at_another_broker(kind: str, tmp_path: Path) -> None:
    (tmp_path / "passcode").write_text(PASSCODE)
    (tmp_path / kind).mkdir()
    with running_broker(kind, tmp_path / kind) as there:
        broker = ("--broker", f"{kind}://{LOGIN}@127.0.0.1:{there.address.port}")
        broker = (*broker, "--passcode-file", str(tmp_path / "passcode"))
        with controller(tmp_path, *broker) as (running, events):
            bench = Bench(tmp_path, broker, events, running)
            guest = bench.guest("--id", "far.1")
            try:
                bench.until("guest_found")
                done = bench.boincvm("exec", "far.*", "--", "head", "-c", "900000", "/dev/zero")
                assert (done.returncode, len(done.stdout)) == (0, 900_000)
                (tmp_path / "file").write_text("there")
                assert bench.boincvm("cp", "file", "far.1:file").returncode == 0
                assert bench.boincvm("exec", "far.1", "--", "cat", "file").stdout == "there"
                guest.ends_well()
                bench.until("guest_left")
            finally:
                guest.close()
