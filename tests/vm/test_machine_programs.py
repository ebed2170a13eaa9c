"""Programs in a machine of the controller, however it came up: streams, signals, ends."""

import hashlib
import os
import signal
import subprocess
import time

import pytest

from support.bench import read_line, until
from support.controller.home import LIMIT
from support.killed_on_failure import killed_on_failure
from support.machine_any import AnyMachine

pytestmark = pytest.mark.timeout(240)


def test_streams_environment_directory_and_exit_code(machine_any: AnyMachine) -> None:
    script = 'pwd; cat; printf "%s\\n" "$NAME" "$@"; echo complaint >&2; exit 7'
    done = machine_any.exec(
        "sh", "-c", script, "zero", "two words", "-dash",
        options=("--env", "NAME=a = b"), code=7, stdin=b"stdin\0\n" * 30_000,
    )  # fmt: skip
    lines = done.stdout.removeprefix(b"/work\n").removeprefix(b"stdin\0\n" * 30_000)
    assert lines == b"a = b\ntwo words\n-dash\n"
    assert done.stderr == b"complaint\n"


def test_no_such_program_and_one_that_is_none(machine_any: AnyMachine) -> None:
    missing = machine_any.exec("no-such-program", code=127).stderr
    assert b"no-such-program" in missing
    assert b"image build" in missing  # as `boincvm run` says
    machine_any.sh("echo '#!/bin/sh' >prog")
    refused = machine_any.exec("./prog", code=126).stderr
    assert b"Permission denied" in refused
    assert b"chmod +x" in refused


def test_a_program_killed_by_a_signal(machine_any: AnyMachine) -> None:
    machine_any.sh("kill -SEGV $$", code=128 + signal.SIGSEGV)


def test_more_output_and_input_than_there_is_credit(machine_any: AnyMachine) -> None:
    """In a machine that was saved the credit continues; none may be lost or given twice."""
    data = os.urandom(1 << 20) * 12
    done = machine_any.exec("cat", stdin=data)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


def test_output_comes_as_it_is_written_and_input_goes_as_it_is_typed(
    machine_any: AnyMachine,
) -> None:
    script = "echo first; read line; echo got $line"
    begun = machine_any.home.begin("exec", machine_any.name, "--", "sh", "-c", script)
    with killed_on_failure(begun) as process:
        assert read_line(process.stdout) == b"first\n"
        assert process.poll() is None
        stdout, stderr = process.communicate(b"typed\n", timeout=LIMIT)
    assert (process.returncode, stdout, stderr) == (0, b"got typed\n", b"")


def test_a_signal_reaches_the_program(machine_any: AnyMachine) -> None:
    script = "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.1; done"
    begun = machine_any.home.begin("exec", machine_any.name, "--", "sh", "-c", script)
    with killed_on_failure(begun) as process:
        assert read_line(process.stdout) == b"ready\n"
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=LIMIT)
        assert (process.returncode, stdout) == (3, b"caught\n"), stderr


def test_a_program_whose_time_is_over(machine_any: AnyMachine) -> None:
    """The processes that it has started end, too."""
    script = "sleep 1000.25 & echo begun; wait"
    done = machine_any.exec("sh", "-c", script, options=("--timeout", "4s"), code=197)
    assert done.stdout == b"begun\n"
    assert b"1000.25" not in machine_any.exec("ps", "ax").stdout


def test_several_at_once(machine_any: AnyMachine) -> None:
    """Each has its own streams and ends separately."""
    script = "read word; echo $word $0; exit $0"
    begun: list[subprocess.Popen[bytes]] = [
        machine_any.home.begin("exec", machine_any.name, "--", "sh", "-c", script, str(number))
        for number in range(1, 5)
    ]
    for number, process in reversed(list(enumerate(begun, 1))):
        with killed_on_failure(process):
            stdout, stderr = process.communicate(b"word\n", timeout=LIMIT)
        assert (process.returncode, stdout) == (number, f"word {number}\n".encode()), stderr


def test_its_clock_is_right_and_its_load_is_reported(machine_any: AnyMachine) -> None:
    before = time.time()
    reported = float(machine_any.exec("date", "+%s.%N").stdout)
    assert before - 1 < reported < time.time() + 1
    load = ("exec", machine_any.name, "--", "sh", "-c", "echo runs; while :; do :; done")
    with killed_on_failure(machine_any.home.begin(*load)) as process:
        # The load alone may be that of the machine's start.
        assert read_line(process.stdout) == b"runs\n"
        until(
            lambda: (machine_any.home.call_json("ls", machine_any.name)["vms"][0]["cpu"] or 0) > 0.2
        )
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=LIMIT)
        assert process.returncode == 128 + signal.SIGINT, stderr
