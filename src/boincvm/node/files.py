"""A guest's side of file transfers over the bus: verbs for `responder.Responder`.

    file-put-begin {"transfer", "path", "kind", "mode", "size", "digest"[, "modified"]} -> {"offset"}
            `offset`: bytes received already; `modified`: nanoseconds since 1970
    file-put-piece {"transfer", "offset"} and data -> {"offset"}
    file-put-end {"transfer"} -> {"is_done"}
            checks the file and puts it into the guest; repeat the request until it is done
    file-get-begin {"transfer", "path"} -> {"is_ready"} and, if so, {"kind", "mode", "size", "digest", "modified"}
            fetches the file from the guest; repeat the request until it is ready
    file-get-piece {"transfer", "offset"} -> {"offset"} and data
    file-drop {"transfer"} -> {}

The requester chooses the transfer's id: a request with the same id continues the transfer, within
one life of the guest. Files in transfer are kept in the spool, a directory of this process's own,
and are removed when they have arrived, failed, or had no request for IDLE seconds.
"""  # noqa: E501

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from boincvm.controller.protocol.requests import Reply
from boincvm.controller.protocol.transfer_rules import (
    MOST_MODE,
    Asked,
    as_host_errors,
    check_digest,
    check_kind,
    check_room,
    check_time,
    check_transfer_id,
    check_whole,
    guest_file,
    remove,
)
from boincvm.errors import BoincvmError, UsageError
from boincvm.node.machine_files import FileRoot
from boincvm.node.responder import Verb
from boincvm.node.transfers import GetTransfer, PutTransfer, Transfer
from boincvm.tar_trees import MOST_BYTES

MOST_TRANSFERS = 16
IDLE = 600.0
"""Seconds without a request after which a transfer is dropped."""
ANSWER_WITHIN = 15.0
"""Seconds after which a request is answered although its work is not done."""
_REMEMBERED = 256
AnyResult = TypeVar("AnyResult")
AnyTransfer = TypeVar("AnyTransfer", bound=Transfer)


class NodeFiles:
    """A node's end of file transfers. It must be closed at the end."""

    def __init__(self, root: FileRoot, spool: Path) -> None:
        """Create the spool, or empty it of what a killed process has left.

        Raises HostError, HostDiskFullError.
        """
        self._root = root
        self._spool = spool
        self._names = itertools.count(1)
        self._open: dict[str, PutTransfer | GetTransfer] = {}
        self._done: OrderedDict[str, Asked] = OrderedDict()
        self._failed: OrderedDict[str, BoincvmError] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        with as_host_errors():
            remove(spool)
            spool.mkdir(mode=0o700, parents=True)
        self.verbs: Mapping[str, Verb] = {
            "file-put-begin": self._put_begin,
            "file-put-piece": self._put_piece,
            "file-put-end": self._put_end,
            "file-get-begin": self._get_begin,
            "file-get-piece": self._get_piece,
            "file-drop": self._drop,
        }
        """Request handlers by name."""

    async def close(self) -> None:
        """End all transfers and remove the spool. Raises HostError."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await asyncio.gather(*(self._end(name) for name in list(self._open)), *self._closing)
        with as_host_errors():
            remove(self._spool)

    # Verbs.

    async def _put_begin(self, table: Mapping[str, object], _: bytes) -> Reply:
        transfer_id, asked = check_transfer_id(table.get("transfer")), _requested(table)
        if transfer_id in self._done:
            _see_same(self._done[transfer_id], asked)
            return Reply({"offset": asked.size})
        self._failed.pop(transfer_id, None)
        known = self._open.get(transfer_id)
        if known is None:
            self._root.check(guest_file(asked.path))
            # For a while a tree takes its size twice, as a stream and unpacked.
            self._see_room(asked.size * (2 if asked.is_tree else 1))
            known = PutTransfer(self._root, self._directory(), asked)
            self._open[transfer_id] = known
        put = self._touch(known, PutTransfer)
        _see_same(put.request, asked)
        return Reply({"offset": put.offset})

    async def _put_piece(self, table: Mapping[str, object], data: bytes) -> Reply:
        transfer_id = check_transfer_id(table.get("transfer"))
        if transfer_id not in self._open:
            self._see_failure(transfer_id)
        put = self._touch(self._open.get(transfer_id), PutTransfer)
        try:
            await put.receive(check_whole(table, "offset"), data)
        except UsageError:
            self._see_failure(transfer_id)
            raise
        except BoincvmError as error:
            # Pieces that arrive later are answered with the same error.
            self._failed[transfer_id] = error
            while len(self._failed) > _REMEMBERED:
                self._failed.popitem(last=False)
            await self._end(transfer_id)
            raise
        return Reply({"offset": put.offset})

    async def _put_end(self, table: Mapping[str, object], _: bytes) -> Reply:
        transfer_id = check_transfer_id(table.get("transfer"))
        if transfer_id in self._done:
            return Reply({"is_done": True})
        put = self._touch(self._open.get(transfer_id), PutTransfer)
        if put.work is None:
            put.work = asyncio.ensure_future(put.deliver())
        if not await self._is_over(transfer_id, put.work):
            return Reply({"is_done": False})
        self._done[transfer_id] = put.request
        while len(self._done) > _REMEMBERED:
            self._done.popitem(last=False)
        await self._end(transfer_id)
        return Reply({"is_done": True})

    async def _get_begin(self, table: Mapping[str, object], _: bytes) -> Reply:
        transfer_id, path = check_transfer_id(table.get("transfer")), guest_file(table.get("path"))
        known = self._open.get(transfer_id)
        if known is None:
            self._root.check(path)
            self._see_room(0)
            known = GetTransfer(self._root, self._directory(), path)
            self._open[transfer_id] = known
        get = self._touch(known, GetTransfer)
        if get.path != path:
            raise _other()
        if get.work is None:
            get.work = asyncio.ensure_future(get.fetch())
        if not await self._is_over(transfer_id, get.work):
            return Reply({"is_ready": False})
        fetched = get.work.result()
        kind = "tree" if fetched.is_tree else "file"
        fields = {
            "kind": kind,
            "mode": fetched.mode,
            "size": fetched.size,
            "digest": fetched.digest,
        }
        return Reply({"is_ready": True, **fields, "modified": fetched.modified})

    async def _get_piece(self, table: Mapping[str, object], _: bytes) -> Reply:
        transfer_id = check_transfer_id(table.get("transfer"))
        get = self._touch(self._open.get(transfer_id), GetTransfer)
        offset = check_whole(table, "offset")
        return Reply({"offset": offset}, get.piece(offset))

    async def _drop(self, table: Mapping[str, object], _: bytes) -> Reply:
        await self._end(check_transfer_id(table.get("transfer")))
        return Reply({})

    # Helpers.

    def _see_failure(self, transfer_id: str) -> None:
        if transfer_id in self._failed:
            raise self._failed[transfer_id]

    def _see_room(self, size: int) -> None:
        if len(self._open) >= MOST_TRANSFERS:
            raise UsageError(
                f"{MOST_TRANSFERS} files are already in transit to or from this guest",
                hint="wait for them; those that nobody asks for are abandoned after ten minutes",
            )
        with as_host_errors():
            check_room(self._spool, size)

    def _directory(self) -> Path:
        return self._spool / str(next(self._names))

    def _touch(
        self, transfer: PutTransfer | GetTransfer | None, kind: type[AnyTransfer]
    ) -> AnyTransfer:
        """Return the transfer and mark it as used. Raises UsageError if it is not of that kind."""
        if transfer is None:
            raise UsageError("there is no such transfer", hint="it was abandoned; start it again")
        if not isinstance(transfer, kind):
            raise _other()
        transfer.touched = asyncio.get_running_loop().time()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(IDLE, self._expire)
        return transfer

    async def _is_over(self, transfer_id: str, work: asyncio.Task[AnyResult]) -> bool:
        """Wait up to ANSWER_WITHIN seconds; return True if `work` is done.

        Raises what `work` raised, after removing the transfer.
        """
        await asyncio.wait((work,), timeout=ANSWER_WITHIN)
        if not work.done():
            return False
        if work.cancelled():
            raise UsageError("the transfer ended before everything had arrived")
        try:
            work.result()
        except BoincvmError:
            await self._end(transfer_id)
            raise
        return True

    async def _end(self, transfer_id: str) -> None:
        transfer = self._open.pop(transfer_id, None)
        if transfer is None:
            return
        if transfer.work is not None:
            transfer.work.cancel()
            await asyncio.wait((transfer.work,))
            if not transfer.work.cancelled():
                transfer.work.exception()  # mark it as retrieved
        await transfer.close()

    def _expire(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        for transfer_id, transfer in list(self._open.items()):
            if loop.time() - transfer.touched >= IDLE:
                task = asyncio.ensure_future(self._end(transfer_id))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
        if self._open:
            self._timer = loop.call_later(IDLE / 2, self._expire)


def _requested(table: Mapping[str, object]) -> Asked:
    """Decode a request to put a file. Raises UsageError."""
    path = guest_file(table.get("path"))
    if not path.name:
        raise UsageError("a file for the guest needs a name there")
    is_tree, digest = check_kind(table.get("kind")), check_digest(table.get("digest"))
    mode, size = check_whole(table, "mode", MOST_MODE), check_whole(table, "size", MOST_BYTES)
    return Asked(str(path), is_tree, mode, size, digest, check_time(table))


def _see_same(known: Asked, asked: Asked) -> None:
    if known != asked:
        raise _other()


def _other() -> UsageError:
    return UsageError(
        "there is already another transfer with that id", hint="choose another id, or leave it out"
    )
