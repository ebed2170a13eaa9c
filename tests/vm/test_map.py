"""`boincvm map` with real machines, as a user calls it."""

import json
import signal
import subprocess

import pytest

from boincvm.runner.sweep_results import JOB_LOG
from support.bench import Bench, finish, until

pytestmark = pytest.mark.timeout(120)

SIMULATION = """\
#!/bin/sh
echo $1 finds $(ls)
cp common out
echo "result of $1 in $(cat input-$1)" >>out
echo "complaint of $1" >&2
[ "$1" != panic ] || echo c >/proc/sysrq-trigger
[ "$1" != bad ] || exit 7
touch left /tmp/left
"""
COMMAND = ("--", "./sim.sh", "{}", ":::", "1", "2", "bad", "panic", "3")


def test_a_sweep(bench: Bench) -> None:
    """Each input has separate files, a machine panics, and machines are reused."""
    (bench.work / "sim.sh").write_text(SIMULATION)
    (bench.work / "sim.sh").chmod(0o755)
    (bench.work / "common").write_text("common\n")
    for name in ("1", "2", "bad", "panic", "3"):
        (bench.work / f"input-{name}").write_text(f"input {name}")
    files = ("--input", "common", "--input", "input-{}", "--output", "out")
    done = bench.run("-j2", "-k", *files, *COMMAND, verb="map")
    assert done.code == 2, done.stderr
    lines = [line for line in done.stdout.decode().splitlines() if not line.startswith("panic")]
    assert lines == [f"{name} finds common input-{name} sim.sh" for name in ("1", "2", "bad", "3")]
    results = bench.work / "results"
    for number, name in ((1, "1"), (2, "2"), (3, "bad"), (5, "3")):
        output = (results / str(number) / "out").read_text()
        assert output == f"common\nresult of {name} in input {name}\n"
        assert (results / str(number) / "stderr").read_text() == f"complaint of {name}\n"
    assert "boincvm: ./sim.sh bad: failed (7) in " in done.stderr
    assert "the guest's kernel panicked" in done.stderr
    assert "boincvm: failed (218): 4: ./sim.sh panic\n" in done.stderr
    assert "boincvm: 3 done, 2 failed\n" in done.stderr
    rows = [line.split("\t") for line in (results / JOB_LOG).read_text().splitlines()[1:]]
    assert sorted((row[0], row[6]) for row in rows) == [
        ("1", "0"), ("2", "0"), ("3", "7"), ("4", "218"), ("5", "0"),
    ]  # fmt: skip
    assert bench.left_overs() == []


def test_ctrl_c_and_resume(bench: Bench) -> None:
    """There are three lines of results in JSON: one before Ctrl-C, the others after."""
    script = '[ "$1" = 1 ] || [ -e go ] || { echo waiting; exec sleep 1000; }; echo "ran $1"'
    (bench.work / "go").touch()
    options = ("-j1", "--results", "kept", "--json", "--memory", "256M")
    command = ("--", "sh", "-c", script, "sh", "{}", ":::", "1", "2", "3")
    process = bench.start(*options, *command, verb="map")
    waiting = bench.work / "kept/2/stdout"
    until(lambda: waiting.exists() and waiting.read_text())
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.code == 130
    first, error = map(json.loads, done.stdout.splitlines())
    assert (first["number"], first["stdout"], first["exit_code"]) == (1, "ran 1\n", 0)
    assert error["error"]["exit_code"] == 130
    assert bench.left_overs() == []
    done = bench.run(*options, "--resume", "--input", "go", *command, verb="map")
    assert done.code == 0, done.stderr
    *ends, summary = map(json.loads, done.stdout.splitlines())
    assert [(end["number"], end["stdout"]) for end in ends] == [(2, "ran 2\n"), (3, "ran 3\n")]
    assert summary == {"done": 2, "failed": 0, "left": 0, "exit_code": 0}


def test_a_reader_that_goes_and_inputs_from_a_pipe(bench: Bench) -> None:
    inputs = b"".join(b"%d\n" % number for number in range(1000))
    command = ("--memory", "256M", "-j1", "--", "seq", "{}", "100000")
    process = bench.start(*command, verb="map", stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(inputs)
    process.stdin.close()
    process.stdin = None
    assert process.stdout.read(2) == b"0\n"
    process.stdout.close()
    process.stdout = None
    done = finish(process)
    assert done.code == 141
    assert bench.left_overs() == []
