"""The controller's side of file transfers over the bus: to many guests, and from one.

The messages are in node/files.py. A transfer survives interruptions: within a call by itself, as
long as the same guest answers within PATIENCE seconds (transfer.py); after the controller was
killed, when the same transfer is requested again under the same `transfer` id.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from boincvm.controller.files.spool import Spooled
from boincvm.controller.files.transfer import Download, Traffic, Transfer
from boincvm.controller.guest_finder import FoundGuests
from boincvm.controller.guests.hub import Hub
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.selector import parse_selector
from boincvm.controller.protocol.transfer_rules import MOST_MODE, check_transfer_id, guest_file
from boincvm.errors import BoincvmError, UsageError
from boincvm.tar_trees import MOST_BYTES
from boincvm.tree_entries import clamp_time

MOST_AT_ONCE = 64
"""Guests that are sent files at the same time; the others wait."""

Outcomes = dict[str, dict[str, object]]
Find = Callable[[str], Awaitable[FoundGuests]]


class Gotten(NamedTuple):
    """A file from a guest, or a tree as a tar stream."""

    is_tree: bool
    mode: int
    """The mode of the file or of the tree's root."""
    size: int
    """Bytes of the content."""
    chunks: Download
    """The content; it may get its final name only once all of it has been read.

    Raises BoincvmError where it breaks off, and OutputFileError at the end if what came is not
    what the guest had.
    """
    modified: int | None = None
    """Nanoseconds since 1970; None if the guest does not say."""


class Files:
    """Copies files to and from guests; to be closed at the end."""

    def __init__(self, hub: Hub, spool: Path | None = None, find: Find | None = None) -> None:
        """Copy files to and from the guests of `hub`.

        `spool`: the directory for sources while they are sent, as files without a name; None: the
        system's directory for temporary files. `find`: which of the guests that a selector matches
        can answer (guest_finder.py); by default all that are on the bus.
        """
        self._hub = hub
        self._find = find or self._on_the_bus
        self._spool = spool
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)
        self._traffic = Traffic(hub.requester)

    async def _on_the_bus(self, vms: str) -> FoundGuests:
        found = self._hub.registry.find(parse_selector(vms))
        if not found:
            raise UsageError(f"no guest matches {vms[:100]!r}")
        return FoundGuests(found, {})

    async def close(self) -> None:
        """Stop telling guests which transfers to drop; calling this again is harmless."""
        await self._traffic.close()

    async def put(
        self,
        vm_selector: str,
        path: str,
        source: AsyncIterator[bytes],
        *,
        is_tree: bool,
        mode: int = 0o644,
        size: int | None = None,
        modified: int | None = None,
        transfer: str | None = None,
    ) -> Outcomes:
        """Put the bytes of `source` at `path` in all guests that `vm_selector` matches now.

        `path`: see `guest_file`; missing directories are created; an existing file is replaced, a
        directory is not. A tree is an uncompressed tar stream. `size`: of `source`, if known.
        `modified`: of a file, in nanoseconds since 1970. `transfer`: an id; a call with the same
        id and source continues an interrupted transfer. Each guest's outcome is
        {"state": "put", "size"} or {"error"}. Raises UsageError, and HostDiskFullError or
        HostError if `source` cannot be spooled.
        """
        destination = guest_file(path)
        if not destination.name:
            raise UsageError("a file for a guest needs a name there")
        if not 0 <= mode <= MOST_MODE:
            raise UsageError(f"a file's mode must be from 0 to {MOST_MODE:o}")
        transfer_id = secrets.token_hex(8) if transfer is None else check_transfer_id(transfer)
        guests, refused = (await self._find(vm_selector)).required(vm_selector)
        with await Spooled.store(source, self._spool, size, MOST_BYTES) as content:
            table: dict[str, object] = {
                "transfer": transfer_id,
                "path": str(destination),
                "kind": "tree" if is_tree else "file",
                "mode": mode,
                "size": content.size,
                "digest": content.digest,
                **({} if modified is None else {"modified": clamp_time(modified)}),
            }
            async with asyncio.TaskGroup() as tasks:
                puts = {
                    guest.id: tasks.create_task(
                        self._outcome(guest, table, content, transfer is not None)
                    )
                    for guest in guests
                }
            failed: Outcomes = {vm: {"error": error.table()} for vm, error in refused.items()}
            return {**failed, **{name: task.result() for name, task in puts.items()}}

    async def _outcome(
        self, guest: Guest, table: Mapping[str, object], content: Spooled, is_resumable: bool
    ) -> dict[str, object]:
        transfer = Transfer(self._traffic, guest, str(table["transfer"]), is_resumable=is_resumable)
        async with self._turns:
            try:
                with self._traffic.at_work():
                    await transfer.put(table, content)
            except BoincvmError as error:
                transfer.end()
                return {"error": error.table()}
            except asyncio.CancelledError:
                transfer.end()
                raise
        return {"state": "put", "size": content.size}

    async def get(
        self, vm: str, path: str, *, transfer: str | None = None, offset: int = 0
    ) -> Gotten:
        """Get the file or tree `path` of the guest `vm`, once it is ready on the guest's host.

        `transfer`: an id; a call with the same id continues an interrupted transfer, from the byte
        `offset` on. Then the caller has to compare the digest (`chunks.digest`). Raises
        BoincvmError.
        """
        destination, transfer_id = (
            guest_file(path),
            check_transfer_id(transfer or secrets.token_hex(8)),
        )
        if parse_selector(vm).only is None:
            raise UsageError(f"there is no guest {vm[:100]!r}", hint="give the id of one guest")
        found, _ = (await self._find(vm)).required(vm)
        asked = Transfer(self._traffic, found[0], transfer_id, is_resumable=transfer is not None)
        try:
            ready = await asked.get_begin(str(destination))
            if not 0 <= offset <= ready.size:
                raise UsageError(f"there is no byte {offset} in a file of {ready.size}")
        except (BoincvmError, asyncio.CancelledError):
            asked.end()
            raise
        chunks = Download(asked, ready, offset)
        return Gotten(ready.is_tree, ready.mode, ready.size, chunks, ready.modified)
