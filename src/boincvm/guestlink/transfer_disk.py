"""The machine's transfer disk, seen from the host.

It is a file of fixed size that the guest sees as a disk, divided into slots. The first half carries
data to the guest, the second half data from it; frames over the link say which slot contains what.
The guest's data there is trusted as little as a frame.
"""

import asyncio
import os

from boincvm.host.files import read_at, write_at
from boincvm.hypervisor.contract import RootDisk

SLOT = 4 << 20
"""Bytes of a slot."""


class TransferDisk:
    """The slots of one transfer disk; `descriptor` is its file, open for reading and writing."""

    def __init__(self, descriptor: int, root_disk: RootDisk | None = None) -> None:
        self._descriptor = descriptor
        self.root_disk = root_disk
        """What the guest need not put into slots, because the host can read it there."""
        self._free: asyncio.Queue[int] = asyncio.Queue()
        slots = [number * SLOT for number in range(os.fstat(descriptor).st_size // SLOT)]
        half = len(slots) // 2
        for slot in slots[:half]:
            self._free.put_nowait(slot)
        self.guest_slots = tuple(slots[half:])
        """The offsets of the slots that the guest fills."""
        self.guest_lock = asyncio.Lock()
        """Held by the one transfer that uses the guest's slots."""

    async def fill(self, source: int, offset: int, length: int) -> tuple[int, int]:
        """Copy up to SLOT bytes of `source` into a slot as soon as one is free.

        Returns the slot's offset and the number of bytes in it.
        """
        at = await self._free.get()
        done = 0
        while done < length:
            data = read_at(source, min(length - done, 1 << 20), offset + done)
            if not data:
                break
            done += write_at(self._descriptor, data, at + done)
        return at, done

    def free(self, at: int) -> None:
        """Free the slot at the offset `at`, which the guest has copied."""
        self._free.put_nowait(at)

    def empty(self, at: int, length: int, target: int, offset: int) -> None:
        """Copy what the guest put at `at` to `offset` in the file `target`.

        Raises ValueError if that is not within one of the guest's slots.
        """
        if at not in self.guest_slots or not 0 < length <= SLOT:
            raise ValueError("this is not one of the guest's slots")
        done = 0
        while done < length:
            data = read_at(self._descriptor, min(length - done, 1 << 20), at + done)
            done += write_at(target, data, offset + done)
