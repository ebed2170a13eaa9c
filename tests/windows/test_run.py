"""`boincvm run` on Windows, with Windows' build of QEMU and the base image."""

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from boincvm.host import win32_windows as win32
from boincvm.host.process_tree import descendants
from boincvm.hypervisor.doctor import Status
from boincvm.hypervisor.qemu import doctor
from boincvm.paths import runs_directory

assert sys.platform == "win32"

pytestmark = pytest.mark.machines

LIMIT = 100.0
BOINCVM = [
    sys.executable,
    *("-X", "utf8", "-B", "-c"),
    f"import sys; sys.path[:0] = {sys.path!r}; from boincvm.cli.main import main; sys.exit(main())",
]


def run(*command: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [*BOINCVM, "run", "--", *command],
        input=given,
        capture_output=True,
        check=False,
        timeout=LIMIT,
    )


def test_a_program_has_its_streams_and_its_exit_code() -> None:
    given = bytes(range(256)) * 1000 + b"\r\n\x1a\n"
    done = run("sh", "-c", "cat; echo error >&2; exit 3", given=given)
    assert done.stdout == given
    assert done.stderr == b"error\n"
    assert done.returncode == 3
    assert left() == []


def test_qemu_ends_with_us() -> None:
    """We are terminated, as by a task manager: no line of ours runs any more."""
    with subprocess.Popen(
        [*BOINCVM, "run", "--", "sh", "-c", "echo runs; cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"runs\n"
        with ExitStack() as stack:
            family = [
                stack.enter_context(win32.process_handle(pid, win32.SYNCHRONIZE))
                for pid in descendants(process.pid)
            ]
            assert family  # QEMU, and perhaps a console's own process
            assert not any(map(win32.has_ended, family))
            process.kill()
            assert all(win32.has_ended(handle, int(LIMIT * 1000)) for handle in family)
    assert left() != []
    assert run("true").returncode == 0
    assert left() == []  # the next one has removed what the killed one left


def test_a_copy_of_a_booted_machine() -> None:
    warm = [*BOINCVM, "image", "warm", "base"]
    assert subprocess.run(warm, check=False, timeout=2 * LIMIT).returncode == 0
    done = subprocess.run(
        [*BOINCVM, "run", "--json", "--", "cat"],
        input=b"given",
        capture_output=True,
        check=False,
        timeout=LIMIT,
    )
    result = json.loads(done.stdout)
    assert (result["start"], result["stdout"]) == ("golden", "given"), result
    assert left() == []


def left() -> list[Path]:
    """Return the directories of runs, without the lock."""
    return [path for path in runs_directory().iterdir() if path.is_dir()]


def test_the_doctor_finds_a_whole_qemu() -> None:
    for check in (doctor.program, doctor.image_tool):
        (found,) = check(lambda: None)
        assert found.status is Status.OK, found
