"""The machine's transfer disk, from the host's side.

A file of fixed size that the guest sees as a disk. Its first half takes what goes to the
guest, its second half what comes from it, in slots; frames over the link say which slot holds
what. What the guest wrote there is as little trusted as a frame.
"""

import asyncio
import os

from boincvm.host.files import read_at, write_at

SLOT = 4 << 20
"""Bytes of a slot."""


class TransferWindow:
    """`descriptor` is the disk's file, open for reading and writing."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._free: asyncio.Queue[int] = asyncio.Queue()
        slots = [number * SLOT for number in range(os.fstat(descriptor).st_size // SLOT)]
        half = len(slots) // 2
        for slot in slots[:half]:
            self._free.put_nowait(slot)
        self.guest_slots = tuple(slots[half:])
        """Where the slots begin that the guest fills."""
        self.guest_lock = asyncio.Lock()
        """Held by the one transfer that the guest's slots serve."""

    async def fill(self, source: int, offset: int, length: int) -> tuple[int, int]:
        """Copies up to SLOT bytes of `source` into a free slot, once there is one.

        Returns where the slot begins and how many bytes are in it.
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
        """The guest has copied the slot that begins at `at`."""
        self._free.put_nowait(at)

    def empty(self, at: int, length: int, target: int, offset: int) -> None:
        """Copies what the guest put at `at` to `offset` in the file `target`.

        Raises ValueError where that is not within one of the guest's slots.
        """
        if at not in self.guest_slots or not 0 < length <= SLOT:
            raise ValueError("that is none of the guest's slots")
        done = 0
        while done < length:
            data = read_at(self._descriptor, min(length - done, 1 << 20), at + done)
            done += write_at(target, data, offset + done)
