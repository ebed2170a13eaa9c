"""Files that the client has for a guest's program."""

import asyncio
from pathlib import Path
from typing import cast

import pytest

from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.fake.driver import FakeDriver
from boincvm.hypervisor.fake.guest import FakeCall, FakeGuest
from boincvm.machine.managed import opened
from boincvm.wrapper.tasks.guest_requests import GuestRequests, Messenger

pytestmark = pytest.mark.timeout(30)
LIMIT = 10.0
NAME = "trickle_down_0"


class Client:
    """A client that has one message for the program."""

    def __init__(self, slot: Path) -> None:
        self.slot = slot

    def trickle_downs(self) -> list[Path]:
        return sorted(self.slot.glob("trickle_down_*"))


async def test_a_message_appears_when_it_is_complete(tmp_path: Path) -> None:
    """In place of an older one, and beside no other file whose name a program would look for."""
    seen: list[dict[bytes, bytes]] = []

    async def remove(guest: FakeGuest, call: FakeCall) -> int:
        guest.files.pop(call.argv[-1], None)
        return 0

    async def move(guest: FakeGuest, call: FakeCall) -> int:
        seen.append({name: file.data for name, file in guest.files.items()})
        guest.files[call.argv[-1]] = guest.files.pop(call.argv[-2])
        return 0

    driver = FakeDriver({"rm": remove, "mv": move})
    nowhere, directory = tmp_path / "none", tmp_path / "machine"
    directory.mkdir()
    spec = MachineSpec(directory, nowhere, nowhere, nowhere, memory=1 << 28, cpus=1)
    requests = GuestRequests(
        cast(Messenger, Client(tmp_path)), directory, frozenset(), lambda: None
    )
    async with asyncio.timeout(LIMIT), opened(driver, spec) as machine:
        for text in ("old", "new"):
            (tmp_path / NAME).write_text(text)
            requests.notify()
            await requests.finish(machine.session)
        (fake,) = driver.machines
        assert {name: file.data for name, file in fake.guest.files.items()} == {
            NAME.encode(): b"new"
        }
    first, second = seen
    (part,) = first
    assert NAME.encode() not in part
    assert (first, second) == ({part: b"old"}, {part: b"new", NAME.encode(): b"old"})
    assert not (tmp_path / NAME).exists()
