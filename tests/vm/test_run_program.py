"""Programs in a machine: their streams, their ends, and their own faults."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from support.bench import LIMIT, Bench, finish, kill, read_line, until
from support.host_delays import within
from support.odd_start import ALL, STATE, STOPPING, clean, mask, state


def test_streams_environment_directory_and_exit_code(bench: Bench) -> None:
    script = 'pwd; cat; printf "%s\\n" "$NAME" "$0" "$@"; echo complaint >&2; exit 7'
    done = bench.run(
        "--env", "NAME=a = b\n",
        "--", "sh", "-c", script, "zero", "two words", "-dash", b"\xff\xfe",
        text=b"stdin\0\n" * 30_000,
    )  # fmt: skip
    assert done.code == 7
    lines = done.stdout.removeprefix(b"/work\n").removeprefix(b"stdin\0\n" * 30_000)
    assert lines == b"a = b\n\nzero\ntwo words\n-dash\n\xff\xfe\n"
    assert done.stderr == "complaint\n"


def test_output_comes_as_it_is_written_and_input_goes_as_it_is_typed(bench: Bench) -> None:
    process = bench.start(
        "--", "sh", "-c", "echo first; read line; echo got $line", stdin=subprocess.PIPE
    )
    assert read_line(process.stdout) == b"first\n"
    assert process.poll() is None
    done = finish(process, b"typed\n")
    assert (done.code, done.stdout, done.stderr) == (0, b"got typed\n", "")


def test_input_that_never_ends_does_not_delay_the_end(bench: Bench) -> None:
    reader, writer = os.pipe()
    try:
        done = bench.run("--", "true", stdin=reader)
    finally:
        os.close(reader)
        os.close(writer)
    assert done.code == 0


def test_no_such_program(bench: Bench) -> None:
    bench.run("--", "no-such\nprogram").check_error(127, "no such program", "no-such\\nprogram")


def test_a_file_without_execute_permission(bench: Bench) -> None:
    (bench.work / "prog").write_text("#!/bin/sh\n")
    done = bench.run("--", "./prog")
    done.check_error(126, "prog: Permission denied")
    assert "chmod +x" in done.stderr


def test_an_interpreter_that_the_guest_has_not(bench: Bench) -> None:
    program = bench.work / "prog"
    program.write_text("#!/usr/bin/no-such-perl\n")
    program.chmod(0o755)
    bench.run("--", "./prog").check_error(126, "interpreter")


def test_arguments_that_are_too_long(bench: Bench) -> None:
    """They are not on the command line, which has the same limit here."""
    job = bench.work / "job.toml"
    for words, complaint in (
        (["x" * 131_071], ""),
        (["x" * 200_000], "one has 200000 bytes, and Linux accepts 131071 in one"),
    ):
        job.write_text(f"[[task]]\ncommand = {['true', *words]}\n")
        done = bench.run("job.toml")
        if complaint:
            done.check_error(126, "the guest cannot execute true: Argument list too long")
        else:
            assert done.code == 0, done.stderr
        assert complaint in done.stderr


def test_a_program_killed_by_a_signal(bench: Bench) -> None:
    bench.sh("kill -SEGV $$").check_error(139, "signal 11 (SIGSEGV) killed sh")


def test_memory_limit(bench: Bench) -> None:
    """Its output up to then is copied back."""
    script = "echo partial >out; exec tail /dev/zero"
    done = bench.run("--memory", "192M", "--output", "out", "--", "sh", "-c", script)
    done.check_error(198, "sh needed more memory than the machine's 192")
    assert (bench.work / "out").read_text() == "partial\n"


def test_time_limit(bench: Bench) -> None:
    """Its output up to then is copied back, to the last line."""
    script = "echo partial >out; echo said; exec sleep 1000"
    options = ("--time-limit", "4", "--output", "none", "--output", "out")
    done = bench.sh(script, *options)
    done.check_error(197, "its limit of 4 s; output none: ")
    assert done.stdout == b"said\n"
    assert (bench.work / "out").read_text() == "partial\n"


@pytest.mark.parametrize(
    ("stop", "saved"), [(10, ["begun", "saved"]), (1, ["begun"])], ids=["in time", "too late"]
)
def test_a_time_limit_leaves_time_to_save(bench: Bench, stop: int, saved: list[str]) -> None:
    script = "trap 'sleep 3; echo saved >>out; exit' TERM; echo begun >out; while :; do :; done"
    limits = f"[limits]\nrun = 4\nstop = {stop}\n"
    files = "[files]\noutput = ['out']\n"
    task = f"[[task]]\ncommand = {['sh', '-c', script]}\n"
    (bench.work / "job.toml").write_text(limits + files + task)
    bench.run("job.toml").check_error(197, "its limit of 4 s")
    assert (bench.work / "out").read_text().split() == saved


def test_disk_full_in_the_guest(bench: Bench) -> None:
    done = bench.sh(
        "fallocate -l $(($(stat -f -c %a*%S /work) - 2000000)) big; cat /dev/zero >small"
    )
    done.check_error(196, "sh filled the machine's disk")
    assert "No space left" in done.stderr


def test_a_gigabyte_of_output_in_bounded_memory(bench: Bench) -> None:
    script = "head -c 1G /dev/zero; cat"  # stays until its input ends
    process = bench.start("--", "sh", "-c", script, stdin=subprocess.PIPE)
    assert process.stdout is not None
    missing = 1 << 30
    while missing:
        data = os.read(process.stdout.fileno(), min(missing, 1 << 20))
        assert data.count(0) == len(data) > 0
        missing -= len(data)
    status = Path(f"/proc/{process.pid}/status").read_text().split()
    assert int(status[status.index("VmHWM:") + 1]) < 80 << 10
    assert finish(process, b"end").stdout == b"end"


def test_a_slow_reader_holds_the_program_back(bench: Bench) -> None:
    # The program tells on standard error how far it has come.
    script = (
        "import os, sys\n"
        "for number in range(64):\n"
        "    os.write(1, bytes(1 << 18))\n"
        "    os.write(2, b'%d\\n' % number)\n"
    )
    process = bench.start("--", "python3", "-c", script)
    # Both streams share a MiB of credit, so the fourth line may have to wait for the reader.
    lines = [read_line(process.stderr) for _ in range(3)]
    assert lines[0] == b"0\n"
    # That, what pipes hold, and no more; the program's own pipe holds 256 KiB.
    assert process.stderr is not None
    os.set_blocking(process.stderr.fileno(), False)
    silent_for = 0.0
    while silent_for < 3:
        try:
            read_line(process.stderr, 3)
        except AssertionError:
            silent_for = 3
        else:
            lines.append(b"")
    assert len(lines) < 16
    os.set_blocking(process.stderr.fileno(), True)
    done = finish(process)
    assert (done.code, len(done.stdout)) == (0, 64 << 18)
    assert done.stderr.endswith("63\n")


def test_output_that_nobody_reads(bench: Bench) -> None:
    process = bench.start("--", "yes")
    read_line(process.stdout)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert (process.wait(LIMIT), process.stderr.read()) == (141, b"")


def test_standard_input_that_cannot_be_read(bench: Bench) -> None:
    with Path("/proc/self/mem").open("rb", buffering=0) as unreadable:
        done = bench.run("--", "cat", stdin=unreadable)
    done.check_error(212, "standard input cannot be read: Input/output error")


def test_closed_standard_streams_are_nothing_to_fall_over(bench: Bench) -> None:
    script = 'exec "$@" <&- >&-'
    done = bench.run("--", "sh", "-c", "echo lost; cat; exit 3", before=["sh", "-c", script, "sh"])
    assert (done.code, done.stdout, done.stderr) == (3, b"", "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_reaches_the_program(bench: Bench, number: signal.Signals, code: int) -> None:
    script = f"trap 'echo caught; exit' {number}; echo ready; while :; do sleep 0.1; done"
    process = bench.start("--", "sh", "-c", script)
    assert read_line(process.stdout) == b"ready\n"
    process.send_signal(number)
    done = finish(process)
    done.check_error(code, f"ended by {number.name}")
    assert done.stdout == b"caught\n"


def test_a_run_that_was_started_oddly(bench: Bench) -> None:
    """The program and QEMU have default signals; a signal that boincvm was to ignore ends
    nothing."""
    odd = ALL["all"]._replace(umask=0o077)
    script = f"{STATE.removeprefix('exec ')}; echo; read line; echo got $line"
    process = bench.start("--", "sh", "-c", script, before=odd.before, stdin=subprocess.PIPE)
    lines = b""
    while not lines.endswith(b"\n\n"):
        lines += read_line(process.stdout)
    assert state(lines.decode()) == clean(0o022)
    status = Path(f"/proc/{bench.machine()}/status").read_text().splitlines()
    shown = [line for line in status if line.startswith(("Umask", "SigBlk", "SigIgn"))]
    # Beyond these QEMU ignores and blocks what it likes; of ours is what ChildProcess says.
    of_qemu = {name: int(value, 16) for name, value in state("\n".join(shown)).items()}
    assert of_qemu["SigBlk"] & mask(*STOPPING) == mask(*STOPPING)
    assert not of_qemu["SigIgn"] & mask(*STOPPING, signal.SIGQUIT, signal.SIGCHLD)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        process.send_signal(number)
    done = finish(process, b"it\n")
    assert (done.code, done.stdout, done.stderr) == (0, b"got it\n", "")


def test_a_program_that_ignores_the_signal_is_ended(bench: Bench) -> None:
    process = bench.start("--", "sh", "-c", "trap '' INT; echo ready; while :; do sleep 1; done")
    assert read_line(process.stdout) == b"ready\n"
    process.send_signal(signal.SIGINT)
    with within(30):
        done = finish(process)
    done.check_error(130, "ended by SIGINT")


def test_a_second_signal_does_not_wait(bench: Bench) -> None:
    process = bench.start("--", "sh", "-c", "trap '' INT; echo ready; while :; do sleep 1; done")
    assert read_line(process.stdout) == b"ready\n"
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    with within(4):
        done = finish(process)
    assert done.code in (130, 143)  # both are pending at once, in no order
    done.check_error(done.code, "ended by SIG")


@pytest.mark.parametrize(("option", "found"), [("-n", b"1\n2\n"), ("--env=A=b", b"1\n")])
def test_a_loop_that_reads_a_list(bench: Bench, option: str, found: bytes) -> None:
    (bench.work / "list").write_text("1\n2\n")
    loop = 'while read x; do "$@" echo $x; done <list'
    done = bench.run(option, "--", before=["bash", "-c", loop, "bash"])
    assert (done.code, done.stdout) == (0, found)
    assert ("leave it alone with boincvm run -n" in done.stderr) is (option != "-n")


def test_a_signal_while_the_machine_starts(bench: Bench) -> None:
    process = bench.start("--", "sleep", "100")
    until(bench.machines)
    process.send_signal(signal.SIGINT)
    with within(4):
        done = finish(process)
    done.check_error(130, "ended by SIGINT")


def test_two_runs_at_once_in_one_directory(bench: Bench) -> None:
    (bench.work / "in").write_bytes(b"input")
    arguments = ("--input", "in", "--output", "out", "--output", "tree/out", "--")
    script = "mkdir tree; cat in >out; cp in tree/out; echo done"
    runs = [bench.start(*arguments, "sh", "-c", script) for _ in range(2)]
    for process in runs:
        done = finish(process)
        assert (done.code, done.stdout, done.stderr) == (0, b"done\n", "")
    for name in ("in", "out", "tree/out"):
        assert (bench.work / name).read_bytes() == b"input"


def test_what_a_program_leaves_running_ends_with_it(bench: Bench) -> None:
    done = bench.sh("(setsid sleep 1000 &) ; echo done")
    assert (done.code, done.stdout) == (0, b"done\n")


def test_the_killed_machine_is_reported(bench: Bench) -> None:
    process = bench.start("--", "sh", "-c", "echo ready; sleep 1000")
    read_line(process.stdout)
    os.close(kill(bench.machine()))
    with within(10):
        done = finish(process)
    done.check_error(215, "killed from outside: signal 9 ended QEMU")
