"""`boincvm` itself: finding verbs, reporting errors, standard output that breaks."""

import errno
import json
import os
import signal
import subprocess
import sys
from types import ModuleType

import pytest

import boincvm
from boincvm.cli import verbs
from boincvm.cli.main import main
from boincvm.errors import BoincvmError, ImageMissingError
from boincvm.exit_codes import ExitCode
from support.bench import until_waits_in
from support.killed_on_failure import killed_on_failure

COMMAND = [sys.executable, "-m", "boincvm.cli.main"]


def start(arguments, **options):
    """Start a separate process, with buffered output as outside tests."""
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    return subprocess.run(
        [*COMMAND, *arguments], env=environment, text=True, timeout=60, check=False, **options
    )


@pytest.fixture
def verb(monkeypatch):
    """Make a verb `try` that does what the test defines."""

    def install(action):
        module = ModuleType("boincvm.cli.try")
        module.add_arguments = lambda parser: parser.add_argument("--json", action="store_true")
        module.run = action
        monkeypatch.setitem(verbs.VERBS, "try", verbs.Verb("try something"))
        monkeypatch.setitem(sys.modules, "boincvm.cli.try", module)

    return install


def raising(error):
    def action(arguments):
        raise error

    return action


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"boincvm {boincvm.__version__}\n"


def test_version_imports_next_to_nothing():
    program = (
        "import sys; before = set(sys.modules); from boincvm.cli.main import main; "
        "main(['--version']); print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[1].split() == ["boincvm", "boincvm.cli", "boincvm.cli.main"]


def test_help_has_all_that_a_person_needs(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in verbs.VERBS)
    assert text.count("\n  boincvm run ") == 3
    assert "boincvm help exit-codes" in text
    assert "boincvm help job-toml" in text
    assert max(map(len, text.splitlines())) <= 100


def test_no_arguments_is_a_usage_error(capsys):
    assert main([]) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("usage: boincvm VERB")


@pytest.mark.parametrize("name", verbs.VERBS)
def test_each_verbs_help_has_examples(capsys, name):
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"\n  boincvm {name}" in text.split("examples:", 1)[1]


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["rnu"], "unknown verb 'rnu'", "did you mean run?"),
        (["--verison"], "unknown option '--verison'", "did you mean --version?"),
        (["doctor", "--jsno"], "unrecognized arguments: --jsno", "boincvm doctor --help"),
        (["doctor", "--js"], "unrecognized arguments: --js", "boincvm doctor --help"),
        (["completion", "fish"], "invalid choice: 'fish'", "boincvm completion --help"),
        (["image"], "VERB", "boincvm image --help"),
        (["image", "rm"], "NAME", "boincvm image rm --help"),
    ],
)
def test_usage_errors_name_the_fault_and_the_next_step(capsys, arguments, message, hint):
    assert main(arguments) == ExitCode.USAGE == 210
    captured = capsys.readouterr()
    assert captured.out == ""
    first, second = captured.err.splitlines()
    assert first.startswith("boincvm: ")
    assert message in first
    assert second.startswith("  ")
    assert hint in second


def test_an_error_of_ours(capsys, verb):
    verb(raising(ImageMissingError("there is no image x", hint="boincvm image build x")))
    assert main(["try"]) == ExitCode.IMAGE_MISSING
    captured = capsys.readouterr()
    assert captured == ("", "boincvm: there is no image x\n  boincvm image build x\n")


def test_an_error_without_a_hint_is_one_line(capsys, verb):
    verb(raising(BoincvmError("no", exit_code=ExitCode.GUEST_HUNG)))
    assert main(["try"]) == ExitCode.GUEST_HUNG
    assert capsys.readouterr().err == "boincvm: no\n"


def test_an_error_as_json(capsys, verb):
    verb(raising(ImageMissingError("there is no image x", hint="build it")))
    assert main(["try", "--json"]) == ExitCode.IMAGE_MISSING
    captured = capsys.readouterr()
    assert captured.err == ""
    reported = {"message": "there is no image x", "hint": "build it", "exit_code": 220}
    assert json.loads(captured.out) == {"error": reported}


def test_json_of_the_programs_own_arguments_is_not_ours(capsys):
    assert main(["run", "--memory", "1", "--", "prog", "--json"]) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("boincvm: argument --memory: found '1', expected a size")


def test_usage_errors_as_json(capsys):
    assert main(["run", "--json"]) == ExitCode.USAGE
    assert json.loads(capsys.readouterr().out)["error"]["exit_code"] == ExitCode.USAGE


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (
            FileNotFoundError(errno.ENOENT, "No such file", "a\nb"),
            ExitCode.HOST,
            r"boincvm: No such file: 'a\nb'",
        ),
        (PermissionError(), ExitCode.HOST, "boincvm: PermissionError"),
        (OSError(errno.ENOSPC, "No space left"), ExitCode.HOST_DISK_FULL, "boincvm: No space left"),
        (OSError(errno.EDQUOT, "Quota", "/x"), ExitCode.HOST_DISK_FULL, "boincvm: Quota: '/x'"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), ExitCode.HOST, "boincvm: Broken pipe"),
    ],
)
def test_an_error_of_the_hosts_system(capsys, verb, error, code, line):
    verb(raising(error))
    assert main(["try"]) == code
    assert capsys.readouterr().err.splitlines()[0] == line


def test_ctrl_c_is_one_line(capsys, verb):
    verb(raising(KeyboardInterrupt()))
    assert main(["try"]) == ExitCode.INTERRUPTED == 130
    assert capsys.readouterr() == ("", "boincvm: interrupted\n")


def test_ctrl_c_in_a_real_process(tmp_path):
    fifo = tmp_path / "job.toml"
    os.mkfifo(fifo)
    command = [*COMMAND, "run", fifo]
    with (
        killed_on_failure(subprocess.Popen(command, stderr=subprocess.PIPE, text=True)) as process,
        fifo.open("w"),  # returns when the process has it open too
    ):
        until_waits_in(process.pid, "pipe_read")
        process.send_signal(signal.SIGINT)
        _, reported = process.communicate(timeout=60)
    assert (process.returncode, reported) == (ExitCode.INTERRUPTED, "boincvm: interrupted\n")


def test_a_bug_has_its_trace(capsys, verb):
    verb(raising(ZeroDivisionError("never")))
    assert main(["try"]) == ExitCode.BUG
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-3:-1] == ["ZeroDivisionError: never", "boincvm: this is a bug: ZeroDivisionError"]
    assert "report" in lines[-1]


def test_a_verbs_code_is_passed_on(verb):
    verb(lambda arguments: 42)
    assert main(["try"]) == 42


@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [
        (["--version"], ""),
        (["--version"], "1"),
        (["--help"], ""),
        (["--help"], "1"),
        (["run", "--help"], ""),  # unbuffered, argparse itself keeps quiet about it
    ],
)
def test_standard_output_on_a_full_disk(arguments, unbuffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        done = subprocess.run(
            [*COMMAND, *arguments],
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == ExitCode.HOST_DISK_FULL
    first, second = done.stderr.splitlines()
    assert first == "boincvm: No space left on device"
    assert "doctor" in second


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_standard_output_that_nobody_reads(unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*COMMAND, "--help"],
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert done.returncode == ExitCode.OUTPUT_CLOSED == 141
    assert done.stderr == b""


def test_the_process_ends_with_the_code():
    done = start(["rum"], capture_output=True)
    assert done.returncode == ExitCode.USAGE
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 2


def test_a_thread_that_still_runs_is_waited_for():
    program = (
        "import sys, threading; from boincvm.cli.main import main; "
        "threading.Thread(target=lambda: print(sys.stdin.read())).start(); "
        "sys.argv = ['boincvm', '--version']; sys.exit(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == f"boincvm {boincvm.__version__}\n"
    rest, _ = process.communicate("said later", timeout=60)
    assert (process.returncode, rest) == (0, "said later\n")
