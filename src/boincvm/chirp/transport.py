"""Transfer of files by Chirp, beside the bus, to and from `chirp://HOST:PORT/PATH`.

Files are written under another name, verified by their size and the server's MD5, and renamed. That
name (`.boincvm-part-…`) is where a later call finds what an earlier one has left, and continues.
"""

import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Collection
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from boincvm.chirp.client import ChirpClient
from boincvm.chirp.files import (
    fetch_file,
    fetch_tree,
    find,
    regular,
    send_file,
    send_tree,
)
from boincvm.chirp.protocol import (
    DOESNT_EXIST,
    ChirpLostError,
    ChirpRefusedError,
    ChirpUrl,
    parse_url,
)
from boincvm.chirp.session import Access, ChirpSession
from boincvm.errors import InputFileError, OutputFileError, UsageError, host_error
from boincvm.host.renames import replace
from boincvm.tree_entries import shown

SCHEME = "chirp://"
OF_GUEST = Access(methods=("hostname",))
"""For a server that a guest has named: it may be anyone's, so nothing is proved to it."""


class Capable(Protocol):
    """A guest of the bus, as it described itself."""

    @property
    def id(self) -> str: ...

    @property
    def capabilities(self) -> Collection[str]: ...


class Copied(NamedTuple):
    """What a copy has transferred."""

    files: int
    bytes: int
    left_out: tuple[str, ...] = ()
    """Symbolic links and special files, by their paths beneath the tree."""


async def chirp_put(
    source: Path | AsyncIterator[bytes], url: str, access: Access | None = None
) -> Copied:
    """Copy a file, a tree or a byte stream to `url`.

    A file replaces an existing one; a tree must be new. The parent directory must exist. A byte
    stream is first collected on this host's disk, since it may be needed again. Raises
    BoincvmError.
    """
    access = access or Access()
    target = _named(url)
    if not isinstance(source, Path):
        with tempfile.TemporaryDirectory(prefix="boincvm-chirp-") as directory:
            collected = Path(directory, "collected")
            await _collect(source, collected, access.most_bytes)
            return await chirp_put(collected, url, access)
    if not source.exists():
        raise InputFileError(f"there is no {shown(os.fsencode(source))}")
    async with ChirpSession(target, access) as session:
        there = await session.do(partial(find, path=target.path))
        part = _beside(target.path, str(source.resolve()))
        if source.is_dir():
            if there is not None:
                raise UsageError(f"{target} already exists", hint="choose another name")
            copied = await send_tree(session, source.resolve(), part)
        else:
            copied = 1, await send_file(session, source.resolve(), part), []
        await session.do(partial(_rename, part=part, path=target.path))
    return Copied(copied[0], copied[1], tuple(copied[2]))


async def chirp_get(url: str, destination: Path, access: Access | None = None) -> Copied:
    """Copy a file or a tree to exactly `destination`.

    A file replaces an existing one; a tree must be new. Raises BoincvmError.
    """
    source = parse_url(url)
    part = Path(_beside(str(destination.absolute()), str(source)))
    async with ChirpSession(source, access or Access()) as session:
        found = await session.do(partial(ChirpClient.lstat, path=source.path))
        if found.is_directory:
            if os.path.lexists(destination):
                raise UsageError(f"{destination} already exists", hint="choose another name")
            copied = await fetch_tree(session, source.path, part)
        else:
            size, mode = await fetch_file(session, source.path, part)
            part.chmod(mode)
            copied = 1, size, []
    try:
        replace(part, destination)
    except OSError as error:
        name = shown(os.fsencode(destination))
        raise host_error(f"cannot make {name}", error, OutputFileError) from None
    return Copied(copied[0], copied[1], tuple(copied[2]))


async def chirp_read(url: str, access: Access | None = None) -> AsyncIterator[bytes]:
    """Yield a file's bytes as they arrive.

    They are verified only at the end: if InputFileError is raised, all of them are invalid. Raises
    BoincvmError.
    """
    source = parse_url(url)
    digest, at = hashlib.md5(usedforsecurity=False), 0
    async with ChirpSession(source, access or Access()) as session:
        size = (await session.do(partial(regular, path=source.path))).size
        session.count(size)
        while at < size:
            try:
                client = await session.client()
                descriptor = await client.open_file(source.path, "r")
                async for data in client.read(descriptor, at, size):
                    digest.update(data)
                    at += len(data)
                    session.reached(at)
                    yield data
                if at < size:
                    raise InputFileError(f"{source} became shorter while it was being copied")
            except ChirpLostError as error:
                await session.lost(error)
        theirs = await session.do(partial(ChirpClient.md5, path=source.path, size=size))
    if theirs != digest.digest():
        raise InputFileError(f"{source} was received differently from what is on the server")


def guest_url(guest: Capable, path: str) -> str:
    """Return the URL of `path` on the Chirp server that `guest` runs, for use with OF_GUEST.

    Its HELLO has the capability `chirp://HOST:PORT`. Raises UsageError.
    """
    for capability in sorted(guest.capabilities):
        if capability.startswith(SCHEME):
            host, port, _ = parse_url(capability)
            named = parse_url(f"{SCHEME}x/{path}")
            return str(ChirpUrl(host, port, named.path))
    raise UsageError(
        f"guest {guest.id} has no Chirp server",
        hint="its HELLO must name one: a capability like chirp://HOST:9094",
    )


def _named(url: str) -> ChirpUrl:
    target = parse_url(url)
    if target.path == "/":
        raise UsageError(f"{url[:200]!r} names no file", hint="give its path: chirp://HOST/PATH")
    return target


def _beside(path: str, other: str) -> str:
    """Return another name in the same directory, always the same for the same copy."""
    directory = path.rpartition("/")[0]
    both = f"{path}\0{other}".encode("utf-8", "surrogateescape")
    return f"{directory}/.boincvm-part-{hashlib.sha256(both).hexdigest()[:16]}"


async def _rename(client: ChirpClient, *, part: str, path: str) -> None:
    try:
        await client.rename(part, path)
    except ChirpRefusedError as refused:
        # An earlier try may have succeeded, and its answer been lost.
        if refused.number != DOESNT_EXIST or await find(client, path) is None:
            raise


async def _collect(source: AsyncIterator[bytes], path: Path, most: int) -> None:
    size = 0
    with path.open("xb") as file:
        async for data in source:
            size += len(data)
            if size > most:
                raise UsageError(f"more than {most} bytes cannot be copied")
            file.write(data)
