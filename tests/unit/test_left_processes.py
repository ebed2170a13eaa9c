"""No test leaves a process running, even if it fails."""

import os
import signal
import subprocess
import sys

import pytest

from boincvm.host.process_tree import children
from support.bench import LIMIT, wait_for_end
from support.left_processes import none_left

PARENT = "import subprocess; subprocess.Popen(['sleep', '1000']); print(flush=True); input()"


class FailedError(Exception):
    """What a failing test raises."""


def test_what_a_failing_block_leaves_is_ended() -> None:
    earlier = subprocess.Popen(["sleep", "1000"])
    try:
        with pytest.raises(FailedError), none_left() as left:  # noqa: PT012
            sleeping = subprocess.Popen(["sleep", "1001"])
            raise FailedError
        assert len(left) == 1
        assert sleeping.wait(LIMIT) == -signal.SIGKILL
        assert earlier.poll() is None
    finally:
        earlier.kill()
        earlier.wait(LIMIT)


def test_and_so_are_its_descendants() -> None:
    with none_left() as left:
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert parent.stdout is not None
        parent.stdout.readline()
        (child,) = children(parent.pid)
        end = os.pidfd_open(child)
    assert len(left) == 1
    assert parent.wait(LIMIT) == -signal.SIGKILL
    wait_for_end(end)
    parent.communicate()


def test_what_has_ended_is_not_left() -> None:
    with none_left() as left:
        subprocess.run(["true"], check=True)
    assert left == []
