"""Receives files and trees from the guest as frames, without following links on the host."""

import asyncio
import errno
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from boincvm import tree_entries
from boincvm.bus.stomp import Frame, StompError
from boincvm.byte_text import encoded
from boincvm.errors import HostDiskFullError, HypervisorError, OutputFileError, host_error
from boincvm.guestlink.display import Progress, no_progress, printable, shown
from boincvm.guestlink.headers import number
from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.transfer_disk import SLOT, TransferDisk
from boincvm.host import filetree
from boincvm.host.filetree import TreeWriter
from boincvm.hypervisor.contract import DiskRangeError, DiskReader, RootDisk
from boincvm.tree_entries import Entry, UnsafePathError

_IN_THE_WAY = (errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR, errno.ENOTDIR)
"""Errors of a rename to a name that a directory has, or that a file has for a directory."""
DISK_PIECE = 8 << 20
"""Most bytes of the root disk to copy at once, during which nothing else is done."""


_ABSENT = os.strerror(errno.ENOENT).lower()


class OutputMissingError(OutputFileError):
    """The guest says that it has no such file."""


class _AbsentError(UnsafePathError):
    """The same, before it is known what the user calls the file."""


async def get_tree(
    link: GuestLink,
    transfer_disk: TransferDisk | None,
    source: PurePosixPath,
    destination: PurePosixPath,
    *,
    directory: Path,
    maximum_bytes: int,
    progress: Progress = no_progress,
    name: str = "",
    replaces: bool = False,
) -> None:
    """Fetch the file or tree `source`, beneath the job's directory, to `destination`.

    `destination` is beneath `directory`; an existing file is replaced atomically when all has
    arrived; so is a directory with contents if `replaces` is set. `name`: what errors call it, if
    `destination` would tell the user nothing. Raises OutputFileError, HostDiskFullError.
    """
    name = name or f"output {shown(destination)}"
    parts = tree_entries.components(os.fsencode(destination))
    root = filetree.open_directory(directory)
    try:
        parent = filetree.open_parent(root, parts, create=True)
        try:
            get = _Get(
                link, transfer_disk, parent, parts[-1], maximum_bytes, progress, replaces=replaces
            )
            await get.receive(source)
        finally:
            os.close(parent)
    except _AbsentError as error:
        raise OutputMissingError(f"{name}: {error}") from error
    except UnsafePathError as error:
        raise OutputFileError(f"{name}: {error}") from error
    except OSError as error:
        full = f"the host's disk is full: no room for {name}"
        raise host_error(
            name,
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


def check_destination(
    directory: Path, destination: PurePosixPath, *, replaces: bool = False
) -> None:
    """Check that an output may be written to `destination` beneath `directory`.

    No link may be on the way there, and no directory with contents may be there, unless `replaces`
    is set. Raises OutputFileError.
    """
    target = directory / destination
    parts = tree_entries.components(os.fsencode(destination))
    root = filetree.open_directory(directory)
    try:
        os.close(filetree.open_parent(root, parts))
        is_directory = target.is_dir() and not target.is_symlink()
        if is_directory and not replaces and any(target.iterdir()):
            raise OutputFileError(
                f"output {shown(target)} is a directory that is not empty",
                hint="move it away, choose another name, or replace it with --replace",
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
        transfer_disk: TransferDisk | None,
        parent: int,
        name: bytes,
        maximum_bytes: int,
        progress: Progress,
        *,
        replaces: bool,
    ) -> None:
        self._replaces = replaces
        self._transfer_disk = transfer_disk
        self._root_disk = None if transfer_disk is None else transfer_disk.root_disk
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
        elif kind == "transfer-disk" and self._transfer_disk is not None:
            at, offset, length = (number(headers, name) for name in ("at", "offset", "length"))
            descriptor = self._writer.descriptor_for(offset, length)
            self._transfer_disk.empty(at, length, descriptor, offset)
            self._call.send("taken")
            self._progress(length)
        elif kind == "disk" and self._root_disk is not None:
            self._copy_from_disk(self._root_disk, frame)
        elif kind == "again":
            self._writer.empty_file()
        elif kind == "done":
            self._writer.finish()
            self._put_in_place()
            self._done.set_result(None)
        elif kind == "failed":
            reason = printable(frame.body)
            message = f"the guest cannot send it: {reason}"
            raise (_AbsentError if reason.lower() == _ABSENT else UnsafePathError)(message)
        else:
            raise StompError(f"a sender does not say {kind!r}")

    def _put_in_place(self) -> None:
        """Give what has arrived its name. Raises OSError."""
        try:
            filetree.rename(self._part, self._name, self._parent)
        except OSError as error:
            if not self._replaces or error.errno not in _IN_THE_WAY:
                raise
            self._replace()

    def _replace(self) -> None:
        """Give what has arrived its name in place of what has it. Raises OSError."""
        former = self._part.removesuffix(b".part") + b".old"
        filetree.rename(self._name, former, self._parent)
        try:
            filetree.rename(self._part, self._name, self._parent)
        except OSError:
            filetree.rename(former, self._name, self._parent)
            raise
        self._remove(former)

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
            if self._transfer_disk is None:
                self._call.send("get", {}, encoded(str(source)))
                await self._done
            else:
                async with self._transfer_disk.guest_lock:
                    slots = " ".join(map(str, self._transfer_disk.guest_slots))
                    headers = {"slots": slots, "slot-size": str(SLOT)}
                    if self._root_disk is not None:
                        headers["disk-piece"] = str(DISK_PIECE)
                    self._call.send("get", headers, encoded(str(source)))
                    await self._done
        except BaseException:
            self._remove(self._part)
            raise
        finally:
            self._call.close()
            self._writer.close()
            if self._reader is not None:
                self._reader.close()

    def _remove(self, name: bytes) -> None:
        try:
            filetree.unlink(name, self._parent)
        except FileNotFoundError:
            pass  # nothing had arrived yet
        except (IsADirectoryError, PermissionError):
            filetree.remove_tree(name, self._parent)
