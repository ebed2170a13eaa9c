"""What a child writes to its standard error: the end is kept, and takes no room on the disk."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from boincvm.host.child_output import TAIL_SIZE, ChildOutput
from boincvm.host.child_output_posix import MOST_UNREAD
from boincvm.host.processes import ChildProcess
from boincvm.hypervisor.machine_spec import MachineSpec
from boincvm.hypervisor.qcow2 import write_overlay
from boincvm.hypervisor.qemu import command
from boincvm.hypervisor.qemu.launch import Launch
from boincvm.hypervisor.qemu.process import QemuProcess, make_transfer_disk

pytestmark = pytest.mark.timeout(60)
LIMIT = 30.0
FLOOD = """
import os, select, sys
for number in range(20_000):
    if sys.argv[1] == "waits":
        select.select([], [2], [])
    try:
        os.write(2, b"external icmpv6 not supported yet, number %8d\\n" % number)
    except BlockingIOError:
        pass
"""
SIZE = 20_000 * 50
"""Bytes, more or less."""


@pytest.fixture
def output(tmp_path: Path) -> Iterator[ChildOutput]:
    made = ChildOutput(tmp_path / "log")
    yield made
    made.close()


@contextmanager
def ended_at_last(child: ChildProcess) -> Iterator[None]:
    try:
        yield
    finally:
        child.end()


def flooding(how: str) -> list[str]:
    return [sys.executable, "-S", "-c", FLOOD, how]


def flood(directory: Path, output: ChildOutput, how: str) -> ChildProcess:
    child = ChildProcess(flooding(how), directory=directory, stderr=output.inherited)
    output.started()
    return child


async def test_of_much_output_the_end_is_kept(tmp_path: Path, output: ChildOutput) -> None:
    output.watch()
    child = flood(tmp_path, output, "waits")  # so that nothing is lost
    with ended_at_last(child):
        async with asyncio.timeout(LIMIT):
            assert await child.wait() == 0
    tail = output.tail()
    assert len(tail) == TAIL_SIZE
    assert tail.endswith(b"number    19999\n")
    assert list(tmp_path.iterdir()) == []


async def test_a_child_waits_for_nobody_who_reads(tmp_path: Path, output: ChildOutput) -> None:
    child = flood(tmp_path, output, "does not wait")
    with ended_at_last(child):
        async with asyncio.timeout(LIMIT):
            assert await child.wait() == 0
    first = b"".join(b"external icmpv6 not supported yet, number %8d\n" % n for n in range(300))
    assert output.tail().startswith(first)


@pytest.mark.parametrize("size", [1, 50, 512])
def test_what_is_kept_while_nobody_reads(output: ChildOutput, size: int) -> None:
    """This is so whatever the host's default for a socket's buffer (net.core.wmem_default) is."""
    message = b"x" * size
    for _ in range(MOST_UNREAD):
        assert os.write(output.inherited, message) == size
    output.started()
    assert output.tail() == (message * MOST_UNREAD)[-TAIL_SIZE:]


async def test_a_guest_cannot_fill_the_disk_with_qemus_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest with a network can cause any number of them."""
    monkeypatch.setattr(command, "machine_command", lambda *_, **__: flooding("waits"))
    write_overlay(tmp_path / "root.qcow2", 1 << 30)
    none = tmp_path / "none"
    spec = MachineSpec(tmp_path / "m", none, none, tmp_path / "root.qcow2", 1 << 28, 1)
    spec.directory.mkdir()
    make_transfer_disk(spec)
    process = QemuProcess(spec, "tcg", Launch(()))
    with ended_at_last(process.child):
        process.watch_output()
        async with asyncio.timeout(LIMIT):
            assert await process.child.wait() == 0
    assert process.last_output() == "external icmpv6 not supported yet, number    19999"
    process.close_channels()
    process.release()
    others = [path for path in spec.directory.iterdir() if path.name != "transfer-disk"]
    assert sum(path.stat().st_size for path in others) < SIZE // 2
