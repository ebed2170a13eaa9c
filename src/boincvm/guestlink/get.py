"""Receives files and trees from the guest as frames, without following links on the host."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from boincvm import tree_entries
from boincvm.bus.stomp import Frame, StompError
from boincvm.errors import HostDiskFullError, HypervisorError, OutputFileError, host_error
from boincvm.guestlink.display import Progress, no_progress, printable, shown
from boincvm.guestlink.headers import number
from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.transfer_disk import SLOT, TransferDisk
from boincvm.host import filetree
from boincvm.host.filetree import TreeWriter
from boincvm.hypervisor.contract import DiskRangeError, DiskReader, RootDisk
from boincvm.tree_entries import Entry, UnsafePathError

DISK_PIECE = 8 << 20
"""Most bytes of the root disk to copy at once, during which nothing else is done."""


async def get_tree(
    link: GuestLink,
    window: TransferDisk | None,
    source: PurePosixPath,
    destination: PurePosixPath,
    *,
    directory: Path,
    maximum_bytes: int,
    progress: Progress = no_progress,
) -> None:
    """Fetch the file or tree `source`, beneath the job's directory, to `destination`.

    `destination` is beneath `directory`; an existing file is replaced atomically when all has
    arrived. Raises OutputFileError, HostDiskFullError.
    """
    parts = tree_entries.components(os.fsencode(destination))
    root = filetree.open_directory(directory)
    try:
        parent = filetree.open_parent(root, parts, create=True)
        try:
            get = _Get(link, window, parent, parts[-1], maximum_bytes, progress)
            await get.receive(source)
        finally:
            os.close(parent)
    except UnsafePathError as error:
        raise OutputFileError(f"output {shown(destination)}: {error}") from error
    except OSError as error:
        full = f"the host's disk is full: no room for output {shown(destination)}"
        raise host_error(
            f"output {shown(destination)}",
            error,
            OutputFileError,
            hint="may you write there, and does something else have that name?",
            full=HostDiskFullError(full, hint="free some space and run again"),
        ) from error
    finally:
        os.close(root)


def all_of(errors: Sequence[OutputFileError]) -> OutputFileError:
    """Return one error that names what each of `errors`, at least one, names."""
    first = errors[0]
    return OutputFileError("; ".join(error.message for error in errors), hint=first.hint)


def check_destination(directory: Path, destination: PurePosixPath) -> None:
    """Check that an output may be written to `destination` beneath `directory`.

    No link may be on the way there, and no directory with contents may be there. Raises
    OutputFileError.
    """
    target = directory / destination
    parts = tree_entries.components(os.fsencode(destination))
    root = filetree.open_directory(directory)
    try:
        os.close(filetree.open_parent(root, parts))
        if target.is_dir() and not target.is_symlink() and any(target.iterdir()):
            raise OutputFileError(
                f"output {shown(target)} is a directory that is not empty",
                hint="move it away, or choose another name",
            )
    except FileNotFoundError:
        pass  # its directories are made when it arrives
    except UnsafePathError as error:
        raise OutputFileError(f"output {shown(destination)}: {error}") from error
    except OSError as error:
        raise host_error(f"output {shown(destination)}", error, OutputFileError) from error
    finally:
        os.close(root)


class _Get:
    """One tree on its way from the guest, under a temporary name until it is complete."""

    def __init__(
        self,
        link: GuestLink,
        window: TransferDisk | None,
        parent: int,
        name: bytes,
        maximum_bytes: int,
        progress: Progress,
    ) -> None:
        self._window = window
        self._root_disk = None if window is None else window.root_disk
        self._reader: DiskReader | None = None
        self._parent = parent
        self._name = name
        self._part = b"." + name[:200] + f".{os.urandom(4).hex()}.part".encode()
        self._writer = TreeWriter(parent, self._part, maximum_bytes=maximum_bytes, nameless=True)
        self._progress = progress
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._call = link.call(self._handle)

    def _handle(self, kind: str, frame: Frame) -> None:
        if self._done.done():
            return
        try:
            self._write(kind, frame)
        except (OSError, UnsafePathError) as error:
            self._done.set_exception(error)

    def _write(self, kind: str, frame: Frame) -> None:
        headers = frame.headers
        if kind == "entry":
            path, _, target = frame.body.partition(b"\0")
            mode, size = number(headers, "mode", base=8), number(headers, "size")
            modified = tree_entries.time_of(headers.get("mtime-ns"))
            self._writer.add(Entry(headers["kind"], path, mode, size, target, modified))
        elif kind == "data":
            self._writer.write(number(headers, "offset"), frame.body)
            self._progress(len(frame.body))
        elif kind == "window" and self._window is not None:
            at, offset, length = (number(headers, name) for name in ("at", "offset", "length"))
            descriptor = self._writer.descriptor_for(offset, length)
            self._window.empty(at, length, descriptor, offset)
            self._call.send("taken")
            self._progress(length)
        elif kind == "disk" and self._root_disk is not None:
            self._copy_from_disk(self._root_disk, frame)
        elif kind == "again":
            self._writer.empty_file()
        elif kind == "done":
            self._writer.finish()
            filetree.rename(self._part, self._name, self._parent)
            self._done.set_result(None)
        elif kind == "failed":
            reason = printable(frame.body)
            raise UnsafePathError(f"the guest cannot send it: {reason}")
        else:
            raise StompError(f"a sender does not say {kind!r}")

    def _copy_from_disk(self, root_disk: RootDisk, frame: Frame) -> None:
        at, offset, length = (number(frame.headers, name) for name in ("at", "offset", "length"))
        if length > DISK_PIECE:
            raise ValueError("this is too long a piece of the disk")
        descriptor = self._writer.descriptor_for(offset, length)
        try:
            if self._reader is None:
                self._reader = root_disk.open_reader()
            self._reader.copy(at, length, descriptor, offset)
        except (DiskRangeError, HypervisorError):
            self._call.send("again")  # it has to come by the transfer disk
        else:
            self._call.send("taken")
            self._progress(length)

    async def receive(self, source: PurePosixPath) -> None:
        """Receive the tree. Raises OSError, UnsafePathError."""
        try:
            if self._window is None:
                self._call.send("get", {}, os.fsencode(str(source)))
                await self._done
            else:
                async with self._window.guest_lock:
                    slots = " ".join(map(str, self._window.guest_slots))
                    headers = {"slots": slots, "slot-size": str(SLOT)}
                    if self._root_disk is not None:
                        headers["disk-piece"] = str(DISK_PIECE)
                    self._call.send("get", headers, os.fsencode(str(source)))
                    await self._done
        except BaseException:
            self._remove_part()
            raise
        finally:
            self._call.close()
            self._writer.close()
            if self._reader is not None:
                self._reader.close()

    def _remove_part(self) -> None:
        try:
            filetree.unlink(self._part, self._parent)
        except FileNotFoundError:
            pass  # nothing had arrived yet
        except (IsADirectoryError, PermissionError):
            filetree.remove_tree(self._part, self._parent)
