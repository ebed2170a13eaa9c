"""The process of a machine whose maker has ended: killed if it still is that machine's."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from boincvm.host.process_tree import command_line
from boincvm.hypervisor import noted_process
from boincvm.hypervisor.noted_process import kill_noted_process, note_process
from support.killed_on_failure import killed_on_failure

LIMIT = 30.0


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    wait = "import sys; print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", wait, str(tmp_path / "boincvm-1.vmx")]
    with killed_on_failure(
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # its command line can be read from now on
        yield process
        process.kill()


def test_it_is_killed(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    note_process(tmp_path, process.pid)
    kill_noted_process(tmp_path, "boincvm-1", LIMIT)
    assert process.wait(LIMIT) == -9


def test_another_process_has_its_id_by_now(
    tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    note_process(tmp_path, process.pid)
    kill_noted_process(tmp_path, "boincvm-2", LIMIT)
    assert process.poll() is None


def test_another_process_gets_its_id_meanwhile(
    tmp_path: Path, process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That happens as soon as its command line has been read; it is imitated."""
    with killed_on_failure(
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ) as other:
        owner = process

        def read(_: int) -> list[bytes]:
            nonlocal owner
            arguments = command_line(owner.pid)
            owner = other
            return arguments

        monkeypatch.setattr(noted_process, "command_line", read)
        monkeypatch.setattr(noted_process, "open_process", lambda _: os.pidfd_open(owner.pid))
        monkeypatch.setattr(noted_process, "send", lambda _, number: os.kill(owner.pid, number))
        note_process(tmp_path, process.pid)
        kill_noted_process(tmp_path, "boincvm-1", LIMIT)
        assert process.wait(LIMIT) == -9
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize("noted", ["", "1.5", "4194304", "-1"])
def test_there_is_no_such_process(tmp_path: Path, noted: str) -> None:
    (tmp_path / "process").write_text(noted)
    kill_noted_process(tmp_path, "boincvm-1", LIMIT)


def test_none_was_noted(tmp_path: Path) -> None:
    kill_noted_process(tmp_path, "boincvm-1", LIMIT)
    assert os.listdir(tmp_path) == []
