"""What is done with a child process when a test fails, and what the failure then shows of it."""

import signal
import subprocess

import pytest

from support.killed_on_failure import killed_on_failure

pytestmark = pytest.mark.timeout(60)


def start(script: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(["sh", "-c", script], stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_one_that_still_runs_is_killed_and_its_output_is_shown() -> None:
    process = start("echo why >&2; echo begun; exec sleep 1000")
    with pytest.raises(AssertionError) as failure, killed_on_failure(process):  # noqa: PT012
        assert process.stdout is not None
        assert process.stdout.readline() == "begun"
    assert process.returncode == -signal.SIGKILL
    assert failure.value.__notes__ == ["the process: stdout '', stderr 'why\\n'"]


def test_so_is_output_that_the_test_has_read() -> None:
    process = start("echo why >&2; exit 1")
    with pytest.raises(AssertionError) as failure, killed_on_failure(process):  # noqa: PT012
        process.communicate(timeout=20)
        assert process.returncode == 0
    assert failure.value.__notes__ == ["the process: stdout '', stderr 'why\\n'"]


def test_an_input_that_the_test_has_closed() -> None:
    process = start("echo why >&2; exit 1")
    with pytest.raises(AssertionError), killed_on_failure(process):  # noqa: PT012
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 0
