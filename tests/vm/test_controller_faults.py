"""Faults of the controller of real machines: it is killed during transfers, and a shim is stopped
for a while."""

import asyncio
import hashlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from boincvm.controller.guests import registry
from support import with_support
from support.controller.controlled import Controlled, controlled

pytestmark = pytest.mark.timeout(280)
SIZE = 48 << 20
LIMIT = 100.0


async def killed(directory: Path, way: str, offset: int, transfer: str, file: Path) -> None:
    """Run a controller in another process, which is killed at that byte of the file."""
    script = ("-m", "support.controller.killed_controller")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *script,
        str(directory),
        way,
        str(offset),
        transfer,
        str(file),
        env=with_support(),
    )
    try:
        async with asyncio.timeout(LIMIT):
            assert await process.wait() == -signal.SIGKILL
    finally:
        if process.returncode is None:
            process.kill()


@asynccontextmanager
async def machine_of(directory: Path) -> AsyncIterator[tuple[int, "Left"]]:
    """Return the shim of a machine `a` that runs while there is no controller."""
    try:
        async with controlled(directory, ends_all=False) as asked:
            await asked("create", name="a", memory="256M")
            await asked.outcome("start", "a")
            await asked.run("a", "sh", "-c", "printf 'former\\n' >large")
            shim, left = asked.shim("a"), Left(directory)
        yield shim, left
    finally:
        async with controlled(directory):
            pass


async def content(file: Path) -> AsyncIterator[bytes]:
    yield await asyncio.to_thread(file.read_bytes)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Left:
    """Files in a controller's directory that did not exist when this was made."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known = set(directory.iterdir())

    def files(self) -> set[str]:
        """Return the files in transit to or from the machine `a`."""
        spool = self._directory / "machines" / "a" / "spool"
        found = {*self._directory.iterdir(), *filter(Path.is_file, spool.rglob("*"))}
        return {str(path) for path in found - self._known}


async def in_guest(asked: Controlled) -> list[str]:
    """Return the digest of `large`, and what else exists."""
    script = "sha256sum <large; ls -A; find / -xdev -name '*boincvm-part*'"
    ((code, text),) = (await asked.run("a", "sh", "-c", script)).values()
    assert code == 0
    return text.replace("  -", "").split()


async def test_the_controller_is_killed_while_a_file_goes_to_a_machine(
    base_image: Path, tmp_path: Path
) -> None:
    directory, file = tmp_path / "c", tmp_path / "file"
    data = os.urandom(SIZE)
    file.write_bytes(data)
    async with machine_of(directory) as (shim, left):
        await killed(directory, "put", SIZE // 2, "mine", file)
        # What has come need not come again: the next one reads from there on, and is killed later.
        (part,) = left.files()
        assert SIZE // 2 - (4 << 20) < Path(part).stat().st_size <= SIZE // 2
        await killed(directory, "put", SIZE // 2 + (8 << 20), "mine", file)
        assert left.files() == {part}
        assert Path(part).stat().st_size > SIZE // 2
        async with controlled(directory, ends_all=False) as asked:
            assert asked.shim("a") == shim
            assert (await asked.vm("a"))["state"] == "running"
            assert await in_guest(asked) == [digest(b"former\n"), "large"]
            for transfer in ("mine", None):  # goes on; and all of it once more
                async with asyncio.timeout(LIMIT):
                    done = await asked.controller.files.put(
                        "a", "large", content(file), is_tree=False, mode=0o600, transfer=transfer
                    )
                assert done == {"a": {"state": "put", "size": SIZE}}
                assert await in_guest(asked) == [digest(data), "large"]
                assert left.files() == set()


async def test_the_controller_is_killed_while_a_file_comes_from_a_machine(
    base_image: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "c"
    async with machine_of(directory) as (shim, left):
        async with controlled(directory, ends_all=False) as asked:
            await asked.run("a", "sh", "-c", f"head -c {SIZE} /dev/urandom >large")
        await killed(directory, "get", SIZE // 2, "mine", tmp_path)
        async with controlled(directory, ends_all=False) as asked:
            assert asked.shim("a") == shim
            expected = await in_guest(asked)
            for transfer in ("mine", None):
                async with asyncio.timeout(LIMIT):
                    gotten = await asked.controller.files.get("a", "large", transfer=transfer)
                    data = b"".join([piece async for piece in gotten.chunks])
                assert [digest(data), "large"] == expected
            # It is told to the shim, and heard in its turn.
            await asked.controller.files.get("a", "large")
        async with controlled(directory, ends_all=False) as asked:
            assert await asked.outcome("power_off", "a") == {"state": "powered_off"}
            assert left.files() == set()


async def test_a_shim_stands_still_for_a_while(
    base_image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is silent, then dropped, and found again: its requests are handled once."""
    # Its beat is of 10 s.
    monkeypatch.setattr(registry, "BEAT", 1.0)
    monkeypatch.setattr(registry, "SILENT_AFTER", 14.0)
    monkeypatch.setattr(registry, "DROPPED_AFTER", 25.0)
    async with controlled(tmp_path) as asked:
        await asked("create", name="a", memory="256M")
        await asked.outcome("start", "a")
        for number, kind in enumerate(("guest_silent", "guest_dropped"), 1):
            counting = "for one in 1 2 3 4 5 6; do echo $one; sleep 1; done"
            meanwhile = await asked.begin("a", "sh", "-c", counting)
            async with asyncio.timeout(LIMIT):
                while not meanwhile.answers["a"].outputs["stdout"].end:
                    await meanwhile.changed()
            os.kill(asked.shim("a"), signal.SIGSTOP)
            try:
                reported = await asked.begin("a", "sh", "-c", "echo once >>told; wc -l <told")
                again = await asked.begin(
                    "a", "sh", "-c", "echo once >>again; wc -l <again", id=f"mine-{number}"
                )
                await asked.until_event(kind, "")
                assert (await asked.vm("a"))["state"] == "stuck"
                assert not reported.is_finished
            finally:
                os.kill(asked.shim("a"), signal.SIGCONT)
            assert await asked.ends(reported) == {"a": (0, f"{number}\n")}
            assert await asked.ends(again) == {"a": (0, f"{number}\n")}
            assert await asked.ends(meanwhile) == {"a": (0, "1\n2\n3\n4\n5\n6\n")}
            vm = await asked.vm("a")
            assert (vm["presence"], vm["state"]) == ("present", "running")
            assert await asked.run("a", "sh", "-c", "cat told again | wc -l") == {
                "a": (0, f"{2 * number}\n")
            }
        kinds = [event.kind for event in asked.controller.events.list_after(0)]
        assert kinds.count("guest_recovered") >= 1
        assert kinds.count("guest_found") == 2


async def test_nothing_is_left_of_a_saved_state_that_a_snapshot_replaces(
    base_image: Path, tmp_path: Path
) -> None:
    async with controlled(tmp_path) as asked:
        await asked("create", name="a", memory="256M")
        await asked.outcome("start", "a")
        await asked.run("a", "sh", "-c", "echo one >file")
        await asked.outcome("snapshot_take", "a", name="first")
        disk = asked.directory("a").disk
        (checkpoint,), (memory,) = disk.glob("checkpoint-*"), disk.glob("memory-*")
        await asked.run("a", "sh", "-c", "echo two >file")
        assert await asked.outcome("save", "a") == {"state": "saved"}
        assert len(list(disk.glob("memory-*"))) == 2
        restored = await asked.outcome("snapshot_restore", "a")
        assert restored == {"state": "running", "snapshot": "first"}
        assert await asked.run("a", "cat", "file") == {"a": (0, "one\n")}
        assert list(disk.glob("checkpoint-*")) == [checkpoint]
        assert list(disk.glob("memory-*")) == [memory]
        assert await asked.outcome("snapshot_restore", "a") == restored
