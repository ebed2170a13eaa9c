"""Sends files and trees to the guest.

Small files are sent as frames over the link. Larger ones go through the transfer disk if the
machine has one: the host writes to a slot of the disk's file, names it to the guest, and reuses it
when the guest has copied it. The caller does not notice the difference.
"""

import asyncio
import errno
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath

from boincvm.bus.stomp import Frame, StompError
from boincvm.byte_text import encoded
from boincvm.errors import BoincvmError, HostDiskFullError, InputFileError, LimitError, host_error
from boincvm.exit_codes import ExitCode
from boincvm.guestlink.display import Progress, no_progress, printable, shown
from boincvm.guestlink.headers import number
from boincvm.guestlink.link import Call, GuestLink
from boincvm.guestlink.safe_open import open_source
from boincvm.guestlink.transfer_disk import SLOT, TransferDisk
from boincvm.host import filetree
from boincvm.host.files import read_at
from boincvm.tree_entries import Entry, UnsafePathError

FRAME_CHUNK = 1 << 17
TRANSFER_DISK_WORTH = 1 << 18
"""Size in bytes from which the transfer disk is faster than frames."""


class _Put:
    """One tree on its way to the guest."""

    def __init__(
        self, link: GuestLink, transfer_disk: TransferDisk | None, progress: Progress
    ) -> None:
        self._link = link
        self._transfer_disk = transfer_disk
        self._progress = progress
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._slots: list[int] = []
        self._call: Call = link.call(self._handle)

    def _handle(self, kind: str, frame: Frame) -> None:
        if self._done.done():
            return
        if kind == "taken":
            if not self._slots or self._transfer_disk is None:
                raise StompError("a slot was freed twice")
            self._progress(number(frame.headers, "bytes", SLOT))
            self._transfer_disk.free(self._slots.pop(0))
        elif kind == "done":
            self._done.set_result(None)
        elif kind == "failed":
            self._done.set_exception(_put_error(frame))
            self._free_slots()  # `send` may be waiting for one
        else:
            raise StompError(f"a receiver does not say {kind!r}")

    def _free_slots(self) -> None:
        while self._slots and self._transfer_disk is not None:
            self._transfer_disk.free(self._slots.pop(0))

    async def send(self, root: int, path: bytes, destination: PurePosixPath) -> None:
        try:
            self._call.send("put", {}, encoded(str(destination)))
            for entry, descriptor in filetree.walk(root, path):
                self._call.send("entry", entry.headers(), entry.path + b"\0" + entry.target)
                if descriptor >= 0:
                    await self._send_content(entry, descriptor)
                if self._done.done():
                    break
                await self._link.drain()
            self._call.send("end")
            await self._done
        finally:
            self._call.close()
            self._free_slots()
            if not self._done.cancel() and not self._done.cancelled():
                self._done.exception()  # retrieved, so that asyncio does not complain

    async def _send_content(self, entry: Entry, descriptor: int) -> None:
        for start, length in filetree.extents(descriptor, entry.size):
            offset, end = start, start + length
            while offset < end and not self._done.done():
                if self._transfer_disk is not None and end - offset >= TRANSFER_DISK_WORTH:
                    offset += await self._send_slot(self._transfer_disk, descriptor, offset, end)
                else:
                    offset += await self._send_frame(descriptor, offset, end)

    async def _send_slot(
        self, transfer_disk: TransferDisk, descriptor: int, offset: int, end: int
    ) -> int:
        at, length = await transfer_disk.fill(descriptor, offset, min(SLOT, end - offset))
        if length == 0:
            transfer_disk.free(at)
            raise InputFileError("an input became shorter while it was read")
        if self._done.done():
            transfer_disk.free(at)
            return length
        self._slots.append(at)
        headers = {"at": str(at), "length": str(length), "offset": str(offset)}
        self._call.send("transfer-disk", headers)
        return length

    async def _send_frame(self, descriptor: int, offset: int, end: int) -> int:
        data = read_at(descriptor, min(FRAME_CHUNK, end - offset), offset)
        if not data:
            raise InputFileError("an input became shorter while it was read")
        self._call.send("data", {"offset": str(offset)}, data)
        await self._link.drain()
        self._progress(len(data))
        return len(data)


def _put_error(frame: Frame) -> BoincvmError:
    if frame.headers["reason"] == str(errno.ENOSPC):
        return LimitError(
            "the guest's disk is full: the inputs do not fit",
            hint="give the machine a larger disk with --disk",
            exit_code=ExitCode.DISK_LIMIT_EXCEEDED,
        )
    return InputFileError(f"the guest refused an input: {printable(frame.body)}")


async def put_tree(
    link: GuestLink,
    transfer_disk: TransferDisk | None,
    source: Path,
    destination: PurePosixPath,
    *,
    directory: Path,
    progress: Progress = no_progress,
) -> None:
    """Send the file or tree `source` to `destination` beneath the job's directory.

    A `source` beneath `directory` is reached without following any link; for any other, only the
    last component is not followed. Raises InputFileError, LimitError.
    """
    with _as_input_errors(source):
        root, path = open_source(directory, source)
        try:
            await _Put(link, transfer_disk, progress).send(root, path, destination)
        finally:
            os.close(root)


def check_source(directory: Path, source: Path) -> None:
    """Check that `source` exists and no link leads to it, without looking at its contents.

    Raises InputFileError.
    """
    with _as_input_errors(source):
        root, path = open_source(directory, source)
        try:
            with closing(filetree.walk(root, path)) as entries:
                next(entries)
        finally:
            os.close(root)


@contextmanager
def _as_input_errors(source: Path) -> Iterator[None]:
    try:
        yield
    except UnsafePathError as error:
        raise InputFileError(f"input {shown(source)}: {error}") from error
    except FileNotFoundError as error:
        raise InputFileError(
            f"input {shown(source)} does not exist",
            hint="paths are relative to the job's directory",
        ) from error
    except OSError as error:
        full = "the host's disk is full: no room for the machine's files"
        raise host_error(
            f"input {shown(source)}",
            error,
            InputFileError,
            hint="check the name with `ls`",
            full=HostDiskFullError(full, hint="free some space and run again"),
        ) from error
