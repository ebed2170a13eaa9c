"""Copy files and trees to and from a Chirp server, resuming interrupted copies.

The size of what an earlier try left tells how far it came. The server's MD5 at the end, which is
the only check that Chirp offers, tells whether all of it is right; if not, it is copied once more.
"""

import asyncio
import hashlib
import os
import stat
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from io import FileIO
from pathlib import Path

from boincvm.chirp.client import AHEAD, PIECE, ChirpClient
from boincvm.chirp.protocol import (
    ALREADY_EXISTS,
    DOESNT_EXIST,
    ChirpRefusedError,
    ChirpStat,
)
from boincvm.chirp.session import ChirpSession
from boincvm.errors import (
    DISK_FULL,
    HostDiskFullError,
    InputFileError,
    OutputFileError,
    UsageError,
    host_error,
)
from boincvm.host.file_names import is_storable
from boincvm.host.files import open_descriptor, read_at, write_at
from boincvm.host.filetree import set_time
from boincvm.tree_entries import shown

_DEEPEST = 64
_TRIES = 2


async def find(client: ChirpClient, path: str) -> ChirpStat | None:
    """Return the status of `path`; None if it does not exist. Symbolic links are not followed."""
    try:
        return await client.lstat(path)
    except ChirpRefusedError as refused:
        if refused.number != DOESNT_EXIST:
            raise
        return None


async def send_file(session: ChirpSession, source: Path, path: str) -> int:
    """Send a file; return its size. Raises BoincvmError."""
    with _opened(source) as file:
        status = os.fstat(file.fileno())
        session.count(status.st_size)
        session.begin_file()
        for _ in range(_TRIES):
            await session.do(lambda client: _write_rest(session, client, file, path, status))
            if await _is_same(session, file, path, status.st_size):
                await session.do(partial(_set_time, path=path, status=status))
                return status.st_size
            await session.do(lambda client: client.unlink(path))
    raise OutputFileError(
        f"{path} differs on the server from what was sent",
        hint="did the file change during the copy, or is somebody else writing to it?",
    )


async def _set_time(client: ChirpClient, path: str, status: os.stat_result) -> None:
    """Set the time in whole seconds, as Chirp has no finer ones; a server may refuse it."""
    with suppress(ChirpRefusedError):
        await client.set_time(path, status.st_mtime_ns // 10**9)


async def _write_rest(
    session: ChirpSession,
    client: ChirpClient,
    file: FileIO,
    path: str,
    status: os.stat_result,
) -> None:
    there = await find(client, path)
    if there is not None and not there.is_file:
        raise OutputFileError(f"{path} on the server is not a file")
    begin = there.size if there is not None and there.size <= status.st_size else 0
    if there is not None and begin == there.size == status.st_size:
        return
    flags = "wc" if begin else "wct"
    descriptor = await client.open_file(path, flags, stat.S_IMODE(status.st_mode) & 0o777 | 0o600)
    await client.write(descriptor, begin, _pieces(session, file, begin, status.st_size))
    await client.close_file(descriptor)


async def _pieces(
    session: ChirpSession, file: FileIO, begin: int, end: int
) -> AsyncIterator[bytes]:
    at = begin
    while at < end:
        size = min(PIECE, end - at)
        data = await asyncio.to_thread(read_at, file.fileno(), size, at)
        if not data:
            raise InputFileError("a file became shorter while it was being sent")
        yield data
        at += len(data)
        # By now the server has acknowledged all but the last AHEAD pieces.
        session.reached(at - AHEAD * PIECE)


async def fetch_file(session: ChirpSession, path: str, part: Path) -> tuple[int, int]:
    """Fetch a file and its time into `part`, resuming what is there; return its size and mode.

    Raises BoincvmError.
    """
    session.begin_file()
    with _opened(part, "c+") as file:
        for _ in range(_TRIES):
            there = await session.do(lambda client: _read_rest(session, client, file, path))
            if await _is_same(session, file, path, there.size):
                session.count(there.size)
                set_time(file.fileno(), there.modified * 10**9)
                return there.size, stat.S_IMODE(there.mode) & 0o777
            file.truncate(0)
    raise InputFileError(
        f"{path} was received differently from what is on the server",
        hint="is somebody writing to it?",
    )


async def _read_rest(
    session: ChirpSession, client: ChirpClient, file: FileIO, path: str
) -> ChirpStat:
    there = await regular(client, path)
    at = os.fstat(file.fileno()).st_size
    if at > there.size:
        file.truncate(0)
        at = 0
    session.check(there.size)
    if at < there.size:
        descriptor = await client.open_file(path, "r")
        async for data in client.read(descriptor, at, there.size):
            with _local_errors():
                await asyncio.to_thread(_write_all, file.fileno(), data, at)
            at += len(data)
            session.reached(at)
        await client.close_file(descriptor)
    return there


async def regular(client: ChirpClient, path: str) -> ChirpStat:
    """Return the status of a regular file. Raises InputFileError if it is not one."""
    there = await client.lstat(path)
    if not there.is_file:
        kind = "directory" if there.is_directory else "regular file"
        raise InputFileError(
            f"{path} on the server is {'a' if there.is_directory else 'no'} {kind}",
            hint="symbolic links are not followed",
        )
    return there


async def _is_same(session: ChirpSession, file: FileIO, path: str, size: int) -> bool:
    there = await session.do(lambda client: find(client, path))
    if there is None or there.size != size or os.fstat(file.fileno()).st_size != size:
        return False
    theirs = await session.do(lambda client: client.md5(path, size))
    return theirs == await asyncio.to_thread(_md5, file)


def _md5(file: FileIO) -> bytes:
    file.seek(0)
    return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()


# Trees.


async def send_tree(session: ChirpSession, source: Path, path: str) -> tuple[int, int, list[str]]:
    """Send a tree; return the numbers of files and bytes, and what was left out.

    Left out are links and special files, listed by their paths beneath `source`. Raises
    BoincvmError.
    """
    files = total = 0
    left_out: list[str] = []
    made: list[tuple[str, os.stat_result]] = []
    waiting = deque([(source, path, 0)])
    while waiting:
        directory, there, depth = waiting.popleft()
        await session.do(partial(_make_directory, path=there))
        made.append((there, directory.lstat()))
        for entry in sorted(_entries(directory, depth), key=lambda entry: entry.name):
            target = f"{there}/{_name(entry.name)}"
            if entry.is_dir(follow_symlinks=False):
                session.count(0)
                waiting.append((Path(entry.path), target, depth + 1))
            elif entry.is_file(follow_symlinks=False):
                total += await send_file(session, Path(entry.path), target)
                files += 1
            else:
                left_out.append(str(Path(entry.path).relative_to(source)))
    for there, status in reversed(made):
        await session.do(partial(_set_time, path=there, status=status))
    return files, total, left_out


def _entries(directory: Path, depth: int) -> list[os.DirEntry[str]]:
    if depth > _DEEPEST:
        raise InputFileError(f"{shown(os.fsencode(directory))} is more than {_DEEPEST} deep")
    try:
        with os.scandir(directory) as found:
            return list(found)
    except OSError as error:
        reason = error.strerror
        raise InputFileError(f"cannot read {shown(os.fsencode(directory))}: {reason}") from None


def _name(name: str) -> str:
    if "\n" in name:
        raise UsageError(
            f"{shown(os.fsencode(name))} has a line break in its name",
            hint="Chirp cannot list such a name; rename it",
        )
    return name


async def _make_directory(client: ChirpClient, path: str) -> None:
    try:
        await client.mkdir(path)
    except ChirpRefusedError as refused:
        if refused.number != ALREADY_EXISTS:
            raise
        if not (await client.lstat(path)).is_directory:
            raise OutputFileError(f"{path} on the server is not a directory") from None


async def fetch_tree(session: ChirpSession, path: str, part: Path) -> tuple[int, int, list[str]]:
    """Fetch a tree into the directory `part`; return what `send_tree` does. Raises BoincvmError."""
    files = total = 0
    left_out: list[str] = []
    made: list[tuple[Path, int]] = []
    top = await session.do(partial(ChirpClient.lstat, path=path))
    waiting = deque([(path, part, top.modified, 0)])
    while waiting:
        there, directory, modified, depth = waiting.popleft()
        if depth > _DEEPEST:
            raise InputFileError(f"{there} on the server is more than {_DEEPEST} deep")
        with _local_errors():
            _make_local(directory)
        made.append((directory, modified * 10**9))
        for name, found in await session.do(partial(ChirpClient.list_directory, path=there)):
            if not is_storable(name):
                raise InputFileError(
                    f"{shown(os.fsencode(name))} on the server is no name for a file of this host"
                )
            source, target = f"{there.rstrip('/')}/{name}", directory / name
            if found.is_directory:
                session.count(0)
                waiting.append((source, target, found.modified, depth + 1))
            elif found.is_file:
                size, mode = await fetch_file(session, source, target)
                with _local_errors():
                    target.chmod(mode)
                total += size
                files += 1
            else:
                left_out.append(str(target.relative_to(part)))
    for directory, modified in reversed(made):
        set_time(os.fsencode(directory), modified)
    return files, total, left_out


def _make_local(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        if not stat.S_ISDIR(directory.lstat().st_mode):
            raise


# Files of this host.


@contextmanager
def _opened(path: Path, mode: str = "r") -> Iterator[FileIO]:
    """Open a regular file without following a symbolic link or waiting for a FIFO."""
    kind = InputFileError if mode == "r" else OutputFileError
    try:
        descriptor = open_descriptor(path, mode, follow_links=False, wait=False, permissions=0o600)
    except OSError as error:
        raise host_error(f"cannot open {shown(os.fsencode(path))}", error, kind) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise kind(f"{shown(os.fsencode(path))} is not a regular file")
    with FileIO(descriptor, "rb" if mode == "r" else "r+b") as file:
        yield file


@contextmanager
def _local_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise HostDiskFullError("this host's disk is full", hint="make room on it") from None
        raise OutputFileError(f"cannot write what Chirp delivers: {error.strerror}") from None


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = write_at(descriptor, view, offset)
        view, offset = view[count:], offset + count
