"""Receive files and trees from the host (Receiver) and send them to it (Sender)."""

from __future__ import annotations

import os

from boincvm import tree_entries
from boincvm.host import filetree_posix as filetree
from boincvm_agent.machine import WORK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from boincvm.bus.stomp import Frame
    from boincvm_agent.link import Link
    from boincvm_agent.transfer_disk import OpenDisk

FRAME_CHUNK = 1 << 17
_DISK_WORTH = 1 << 22  # bytes from which the host copies a file sooner than we put it into slots
_DISK_PIECES = 3  # on their way to the host at once
_NO_LIMIT = 1 << 62  # the guest's disk is the limit


class TransferDisk:
    """Opens the transfer disk when it is first needed.

    Many jobs never need it, and importing its module takes a quarter of the agent's start.
    """

    def __init__(self) -> None:
        self._open_disk: OpenDisk | None = None

    def open(self) -> OpenDisk:
        """Return the transfer disk. Raises FileNotFoundError if the machine has none."""
        if self._open_disk is None:
            from boincvm_agent.transfer_disk import OpenDisk

            self._open_disk = OpenDisk()
        return self._open_disk


DISK = TransferDisk()
"""The transfer disk, which all transfers share."""


def open_work() -> int:
    """Open the job's directory."""
    return os.open(WORK, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


class Receiver:
    """Receives one tree, to `path` below the job's directory."""

    def __init__(self, link: Link, disk: TransferDisk, call: str, path: bytes) -> None:
        self.call = call
        self._link = link
        self._disk = disk
        root = open_work()
        try:
            parts = tree_entries.components(path)
            if not parts:
                raise tree_entries.UnsafePathError("an input needs a name")
            parent = filetree.open_parent(root, parts, create=True)
            try:
                self._writer = filetree.TreeWriter(parent, parts[-1], maximum_bytes=_NO_LIMIT)
            finally:
                os.close(parent)
        finally:
            os.close(root)

    def handle(self, kind: str, frame: Frame) -> bool:
        """Handle the next message about the tree; return False after the last. Raises OSError."""
        headers = frame.headers
        if kind == "entry":
            path, _, target = frame.body.partition(b"\0")
            mode, size = int(headers["mode"], 8), int(headers["size"])
            modified = tree_entries.time_of(headers.get("mtime-ns"))
            entry = tree_entries.Entry(headers["kind"], path, mode, size, target, modified)
            self._writer.add(entry)
        elif kind == "data":
            self._writer.write(int(headers["offset"]), frame.body)
        elif kind == "transfer-disk":
            length, offset = int(headers["length"]), int(headers["offset"])
            descriptor = self._writer.descriptor_for(offset, length)
            self._disk.open().to_file(int(headers["at"]), length, descriptor, offset)
            self._link.send("taken", self.call, {"bytes": str(length)})
        elif kind == "end":
            self._writer.finish()
            self._link.send("done", self.call, {})
            return False
        return True

    def close(self) -> None:
        """Give up and close the descriptors."""
        self._writer.close()


class Sender:
    """Sends the tree at `path` below the job's directory.

    `slots`: offsets on the transfer disk where it may put data, `slot_size` bytes each; if there
    are none, frames carry all data. `disk_piece`: how many bytes the host copies from the root disk
    at once; 0 if it cannot.
    """

    def __init__(
        self,
        link: Link,
        disk: TransferDisk,
        call: str,
        path: bytes,
        slots: list[int],
        slot_size: int,
        disk_piece: int,
    ) -> None:
        self.call = call
        self._link = link
        self._disk = disk
        self._path = path
        self._slots = slots
        self._slot_size = slot_size
        self._used: list[int] = []
        self._disk_piece = disk_piece
        self._pieces = 0  # of the root disk that the host has not copied yet
        self._is_refused = False

    def handle_copied(self, *, again: bool) -> None:
        """Note that the host has copied what it was told of first, or cannot: `again`."""
        if self._pieces:
            self._pieces -= 1
            self._is_refused |= again
        else:
            self._slots.append(self._used.pop(0))

    def steps(self) -> Iterator[bool]:
        """Queue a little at each step; yield True to wait for a free slot."""
        root = open_work()
        try:
            for entry, descriptor in filetree.walk(root, self._path):
                names = entry.path + b"\0" + entry.target
                self._link.send("entry", self.call, entry.headers(), names)
                yield False
                if descriptor >= 0:
                    yield from self._send_content(descriptor, entry.size)
            self._link.send("done", self.call, {})
        finally:
            os.close(root)

    def _send_content(self, descriptor: int, size: int) -> Iterator[bool]:
        is_worth_it = self._disk_piece > 0 and size >= _DISK_WORTH
        if is_worth_it and (yield from self._name_blocks(descriptor, size)):
            return
        for start, length in filetree.extents(descriptor, size):
            yield from self._send_extent(descriptor, start, length)

    def _name_blocks(self, descriptor: int, size: int) -> Generator[bool, None, bool]:
        """Tell the host where on the root disk the file is; the host copies it there.

        Returns False if the file has to be sent in another way.
        """
        from boincvm_agent.root_disk import blocks_of

        self._is_refused = False
        blocks = blocks_of(descriptor, size)
        if blocks is None:
            return False
        for offset, at, length in blocks.extents:
            end = offset + length
            while offset < end and not self._is_refused:
                while self._pieces >= _DISK_PIECES:
                    yield True
                part = min(self._disk_piece, end - offset)
                headers = {"at": str(at), "length": str(part), "offset": str(offset)}
                self._link.send("disk", self.call, headers)
                self._pieces += 1
                offset, at = offset + part, at + part
                yield False
        while self._pieces:
            yield True
        # If the file has changed, another one's data may have come to lie in its blocks.
        if not self._is_refused and blocks.are_still(blocks_of(descriptor, size)):
            return True
        self._link.send("again", self.call, {})
        return False

    def _send_extent(self, descriptor: int, offset: int, length: int) -> Iterator[bool]:
        end = offset + length
        by_disk = bool(self._slots or self._used)
        while offset < end:
            if by_disk and end - offset > FRAME_CHUNK:
                while not self._slots:
                    yield True
                moved = self._fill_slot(descriptor, offset, min(self._slot_size, end - offset))
            else:
                data = os.pread(descriptor, min(FRAME_CHUNK, end - offset), offset)
                if data:
                    self._link.send("data", self.call, {"offset": str(offset)}, data)
                moved = len(data)
            if moved == 0:
                return  # the file has become shorter; the host sees a hole
            offset += moved
            yield False

    def _fill_slot(self, descriptor: int, offset: int, length: int) -> int:
        at = self._slots.pop(0)
        moved = self._disk.open().from_file(descriptor, offset, length, at)
        if moved:
            self._used.append(at)
            headers = {"at": str(at), "length": str(moved), "offset": str(offset)}
            self._link.send("transfer-disk", self.call, headers)
        else:
            self._slots.append(at)
        return moved
