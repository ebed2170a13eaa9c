"""The controller's side of files over the bus: to many guests, and from one.

The words are in node/files.py. A transfer goes on after whatever broke: within a call by
itself, as long as the same guest answers within PATIENCE seconds (transfer.py); after a
killed controller when the same is asked for again under the same `transfer`.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from boincvm.controller.files.spool import Spooled
from boincvm.controller.files.transfer import Download, Traffic, Transfer
from boincvm.controller.guests.hub import Hub
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.selector import parse_selector
from boincvm.controller.protocol.transfer_rules import MOST_MODE, check_transfer_id, guest_path
from boincvm.controller.reach import Reached
from boincvm.errors import BoincvmError, UsageError
from boincvm.tar_trees import MOST_BYTES
from boincvm.tree_entries import clamp_time

MOST_AT_ONCE = 64
"""Guests that are sent something; the others wait."""

Outcomes = dict[str, dict[str, object]]
Find = Callable[[str], Awaitable[Reached]]


class Gotten(NamedTuple):
    """A file, or a tree as a tar stream, of `size` bytes; `mode` of the file or of the tree's
    root, and `modified`, in nanoseconds since 1970, None where its guest does not say. `chunks`
    raises BoincvmError where it breaks off, and at its end OutputFileError where what came is not
    what was there: only then may it get its final name."""

    is_tree: bool
    mode: int
    size: int
    chunks: Download
    modified: int | None = None


class Files:
    """`spool`: where sources lie while they are sent, as files without a name; None: where the
    system has such files. To be closed at the end."""

    def __init__(self, hub: Hub, spool: Path | None = None, find: Find | None = None) -> None:
        """`find`: who of those that a selector matches can answer, see reach.py; by default all
        that are on the bus."""
        self._hub = hub
        self._find = find or self._on_the_bus
        self._spool = spool
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)
        self._traffic = Traffic(hub.requester)

    async def _on_the_bus(self, vms: str) -> Reached:
        found = self._hub.registry.find(parse_selector(vms))
        if not found:
            raise UsageError(f"there is no guest that {vms[:100]!r} means")
        return Reached(found, {})

    async def close(self) -> None:
        """Tell guests no longer what is not wanted; again is harmless."""
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

        `path`: see `guest_path`; directories on the way are made; a file that is there is
        replaced, a directory is not. A tree is a tar stream that is not compressed. `size`: of
        `source`, where it is known. `modified`: of a file, in nanoseconds since 1970. `transfer`:
        who asks again under the same id, with the same source, goes on where it ended. Each
        guest's outcome is {"state": "put", "size"} or {"error"}. Raises UsageError;
        HostDiskFullError or HostError where `source` finds no room here.
        """
        place = guest_path(path)
        if not place.name:
            raise UsageError("what is put in a guest needs a name there")
        if not 0 <= mode <= MOST_MODE:
            raise UsageError(f"a file's mode is from 0 to {MOST_MODE:o}")
        transfer_id = secrets.token_hex(8) if transfer is None else check_transfer_id(transfer)
        guests, refused = (await self._find(vm_selector)).required(vm_selector)
        with await Spooled.take(source, self._spool, size, MOST_BYTES) as content:
            table: dict[str, object] = {
                "transfer": transfer_id,
                "path": str(place),
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
            told: Outcomes = {vm: {"error": error.table()} for vm, error in refused.items()}
            return {**told, **{name: task.result() for name, task in puts.items()}}

    async def _outcome(
        self, guest: Guest, table: Mapping[str, object], content: Spooled, is_kept: bool
    ) -> dict[str, object]:
        transfer = Transfer(self._traffic, guest, str(table["transfer"]), is_kept=is_kept)
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
        """Get the file or tree `path` of the guest `vm`, once it lies ready in the guest's host.

        `transfer`, `offset`: who asks again under the same id goes on, from that byte on; then
        the digest is for the caller to compare (`chunks.digest`). Raises BoincvmError.
        """
        place, transfer_id = guest_path(path), check_transfer_id(transfer or secrets.token_hex(8))
        if parse_selector(vm).only is None:
            raise UsageError(f"there is no guest {vm[:100]!r}", hint="give the id of one")
        found, _ = (await self._find(vm)).required(vm)
        asked = Transfer(self._traffic, found[0], transfer_id, is_kept=transfer is not None)
        try:
            ready = await asked.get_begin(str(place))
            if not 0 <= offset <= ready.size:
                raise UsageError(f"there is no byte {offset} in a file of {ready.size}")
        except (BoincvmError, asyncio.CancelledError):
            asked.end()
            raise
        chunks = Download(asked, ready, offset)
        return Gotten(ready.is_tree, ready.mode, ready.size, chunks, ready.modified)
