"""The lock on a machine's disk, which the hypervisor's process holds until it has ended."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from boincvm.errors import HypervisorError
from boincvm.host.locks import open_lock, try_lock
from boincvm.hypervisor import disk_lock
from boincvm.hypervisor.disk_lock import FILE, DiskLock
from support.killed_on_failure import killed_on_failure

pytestmark = pytest.mark.timeout(60)
WAITS = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]


@contextmanager
def inheriting(*descriptors: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that has inherited `descriptors`."""
    pipe = subprocess.PIPE
    with killed_on_failure(
        subprocess.Popen(WAITS, stdin=pipe, stdout=pipe, pass_fds=descriptors)
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def is_locked(directory: Path) -> bool:
    descriptor = open_lock(directory / FILE)
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)


async def test_who_has_inherited_it_is_killed(tmp_path: Path) -> None:
    lock = await DiskLock.take(tmp_path)
    with inheriting(lock.descriptor) as process:
        lock.note(process.pid)
        lock.close()
        assert is_locked(tmp_path)
        (await DiskLock.take(tmp_path)).close()
        assert process.wait(disk_lock.LIMIT) == -9
    assert not is_locked(tmp_path)


async def test_nobody_is_killed_for_an_id_that_was_noted_before(tmp_path: Path) -> None:
    """Neither while nobody holds the lock, nor while its new holder is not noted yet."""
    with inheriting() as other:
        lock = await DiskLock.take(tmp_path)
        lock.note(other.pid)
        lock.close()
        lock = await DiskLock.take(tmp_path)
        assert other.poll() is None
        with inheriting(lock.descriptor) as process, pytest.MonkeyPatch.context() as patched:
            lock.close()
            patched.setattr(disk_lock, "LIMIT", 0.1)
            with pytest.raises(HypervisorError, match=r"has not ended within 0\.1 s"):
                await DiskLock.take(tmp_path)
            assert (other.poll(), process.poll()) == (None, None)
            process.kill()
            patched.undo()
            (await DiskLock.take(tmp_path)).close()
        assert other.poll() is None


@pytest.mark.parametrize("noted", ["", "1.5", "4194304", "-1"])
async def test_no_such_process_was_noted(tmp_path: Path, noted: str) -> None:
    (tmp_path / FILE).write_text(noted)
    (await DiskLock.take(tmp_path)).close()
    assert (tmp_path / FILE).read_text() == ""


async def test_a_file_that_cannot_be_locked(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(HypervisorError, match="cannot be made"):
        await DiskLock.take(tmp_path)
