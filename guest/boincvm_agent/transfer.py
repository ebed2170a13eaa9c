"""Files and trees from the host (Receiver) and to the host (send_tree)."""

from __future__ import annotations

import os
from array import array

from boincvm import filetree
from boincvm_agent.machine import WORK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from boincvm.bus.stomp import Frame
    from boincvm_agent.link import Link

CHUNK = 1 << 17
WINDOW_SERIAL = b"boincvm-window"
_WINDOW_CHUNK = 1 << 20
_ALIGNMENT = 4096
_NO_LIMIT = 1 << 62  # the guest's disk is the limit


def open_work() -> int:
    """The job's directory."""
    return os.open(WORK, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


class Window:
    """The read-only disk through which the host hands over bulk data.

    Read past the guest's page cache, since the host changes it at any time.
    """

    def __init__(self) -> None:
        self._descriptor = os.open(_window_device(), os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        memory = array("B", bytes(_WINDOW_CHUNK + _ALIGNMENT))
        start = -memory.buffer_info()[0] % _ALIGNMENT
        self._buffer = memoryview(memory)[start : start + _WINDOW_CHUNK]

    def copy(self, offset: int, length: int, writer: filetree.TreeWriter, target: int) -> None:
        """Copies `length` bytes at `offset` (aligned) of the window to `target` in the file."""
        while length:
            part = min(length, _WINDOW_CHUNK)
            aligned = part + -part % _ALIGNMENT
            if os.preadv(self._descriptor, [self._buffer[:aligned]], offset) != aligned:
                raise OSError("the window ended early")
            writer.write(target, self._buffer[:part])
            offset += part
            target += part
            length -= part


def _window_device() -> str:
    for name in os.listdir("/sys/block"):
        try:
            with open(f"/sys/block/{name}/serial", "rb") as file:
                if file.read().strip() == WINDOW_SERIAL:
                    return f"/dev/{name}"
        except FileNotFoundError:
            continue  # a device without a serial number
    raise FileNotFoundError("this machine has no transfer disk")


class Receiver:
    """One tree on its way in, at `path` beneath the job's directory."""

    window: Window | None = None  # one for all

    def __init__(self, link: Link, call: str, path: bytes) -> None:
        self.call = call
        self._link = link
        root = open_work()
        try:
            parts = filetree.components(path)
            if not parts:
                raise filetree.UnsafePathError("an input needs a name")
            parent = filetree.open_parent(root, parts, create=True)
            try:
                self._writer = filetree.TreeWriter(parent, parts[-1], maximum_bytes=_NO_LIMIT)
            finally:
                os.close(parent)
        finally:
            os.close(root)

    def take(self, word: str, frame: Frame) -> bool:
        """The next of the tree's words; False after the last one. Raises OSError and others."""
        headers = frame.headers
        if word == "entry":
            path, _, target = frame.body.partition(b"\0")
            mode, size = int(headers.get("mode", "0"), 8), int(headers.get("size", "0"))
            self._writer.add(filetree.Entry(headers["kind"], path, mode, size, target))
        elif word == "data":
            self._writer.write(int(headers["offset"]), frame.body)
        elif word == "window":
            length = int(headers["length"])
            self._window().copy(int(headers["at"]), length, self._writer, int(headers["offset"]))
            self._link.send("taken", self.call, {"bytes": str(length)})
        elif word == "end":
            self._writer.finish()
            self._link.send("done", self.call, {})
            return False
        return True

    @classmethod
    def _window(cls) -> Window:
        if cls.window is None:
            cls.window = Window()
        return cls.window

    def close(self) -> None:
        """Given up: lets go of the descriptors."""
        self._writer.close()


def send_tree(link: Link, call: str, path: bytes) -> Iterator[None]:
    """Queues the tree at `path` beneath the job's directory, a little at each step."""
    root = open_work()
    try:
        for entry, descriptor in filetree.walk(root, path):
            headers = {"kind": entry.kind, "mode": f"{entry.mode:o}", "size": str(entry.size)}
            link.send("entry", call, headers, entry.path + b"\0" + entry.target)
            yield
            if descriptor < 0:
                continue
            for start, length in filetree.extents(descriptor, entry.size):
                offset, end = start, start + length
                while offset < end:
                    data = os.pread(descriptor, min(CHUNK, end - offset), offset)
                    if not data:
                        break  # the file shrank meanwhile; the host sees a hole
                    link.send("data", call, {"offset": str(offset)}, data)
                    offset += len(data)
                    yield
        link.send("done", call, {})
    finally:
        os.close(root)
