"""Files to and from guests arrive complete or not at all, whatever is lost in transit."""

import asyncio
import errno
import io
import os
import random
import tarfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boincvm import tar_trees
from boincvm.controller.files import spool, transfer
from boincvm.controller.protocol import transfer_rules
from boincvm.controller.protocol.requests import Reply
from boincvm.controller.protocol.transfer_rules import PIECE
from boincvm.errors import (
    BoincvmError,
    GuestDiedError,
    GuestProtocolError,
    HostDiskFullError,
    OutputFileError,
    UsageError,
)
from boincvm.exit_codes import ExitCode
from boincvm.node import files as node_files
from boincvm.node.files import NodeFiles
from support.controller.lossy_files import FileNet, file_net, pieces_of, tar_of

DATA = random.Random(7).randbytes(20 * PIECE + 77)


async def put(made: FileNet, data: bytes, path: str = "a/b", **more: object) -> dict[str, object]:
    outcomes = await made.files.put("g1", path, pieces_of(data), **{"is_tree": False, **more})  # type: ignore[arg-type]
    return outcomes["g1"]


async def whole(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


def message(outcome: Mapping[str, object]) -> str:
    error = outcome["error"]
    assert isinstance(error, dict)
    return str(error["message"])


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, len(DATA)])
async def test_a_file_there_and_back(tmp_path: Path, size: int) -> None:
    async with file_net(tmp_path) as made:
        times = {"modified": 1_234_567_890_123_456_789}
        reported = await put(made, DATA[:size], "a dir/ö\udcff", mode=0o751, size=size, **times)
        assert reported == {"state": "put", "size": size}
        file = made.host.root / "a dir/ö\udcff"
        assert file.read_bytes() == DATA[:size]
        assert file.stat().st_mode & 0o777 == 0o751
        assert file.stat().st_mtime_ns == times["modified"]
        await made.host.until_empty()
        got = await made.files.get("g1", "/work/a dir/ö\udcff")
        assert (got.is_tree, got.mode, got.size) == (False, 0o751, size)
        assert got.modified == times["modified"]
        assert await whole(got.chunks) == DATA[:size]
        await made.host.until_empty()


async def test_a_tree_there_and_back(tmp_path: Path) -> None:
    sent = tar_of(
        ("./", None, 0o755),
        ("x/y", None, 0o750),
        ("x/y/z\udcff\n", DATA, 0o644),
        ("hole", bytes(3 << 20), 0o600),
        ("x/link", "../hole", 0o777),
        ("d" * 200 + "/" + "e" * 200, b"deep", 0o400),
    )
    async with file_net(tmp_path) as made:
        reported = await put(made, sent, "t/tree", is_tree=True)
        assert reported == {"state": "put", "size": len(sent)}
        tree = made.host.root / "t/tree"
        assert (tree / "x/y/z\udcff\n").read_bytes() == DATA
        assert (tree / "hole").read_bytes() == bytes(3 << 20)
        assert str((tree / "x/link").readlink()) == "../hole"
        assert (tree / "x/y").stat().st_mode & 0o777 == 0o750
        got = await made.files.get("g1", "t/tree")
        assert (got.is_tree, got.mode) == (True, 0o755)
        with tarfile.open(fileobj=io.BytesIO(await whole(got.chunks))) as tar:
            names = [os.fsencode(name) for name in tar.getnames()]
            file = tar.extractfile("x/y/z\udcff\n")
            assert file is not None
            assert file.read() == DATA
            assert tar.getmember("x/link").linkname == "../hole"
        assert b"d" * 200 + b"/" + b"e" * 200 in names
        assert names[0] == b"."
        await made.host.until_empty()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 30), st.floats(0, 0.5), st.floats(0, 0.5), st.integers(0, 8))
def test_whatever_is_lost_the_bytes_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, seed: int, loses: float, doubles: float, late: int
) -> None:
    async def run() -> None:
        directory = tmp_path_factory.mktemp("lossy")
        async with (
            file_net(directory, "g1", "g2", seed=seed) as made,
            asyncio.TaskGroup() as tasks,
        ):
            net = made.net
            net.loses, net.doubles, net.late = loses, doubles, late
            task = tasks.create_task(made.files.put("all", "f", pieces_of(DATA), is_tree=False))
            await net.beat_until(task)
            assert {name: one["state"] for name, one in task.result().items()} == {
                "g1": "put",
                "g2": "put",
            }
            for one in made.hosts.values():
                assert (one.root / "f").read_bytes() == DATA
                assert (one.file_root.puts, one.left) == (1, [])
            net.loses = loses

            async def back() -> bytes:
                return await whole((await made.files.get("g2", "f")).chunks)

            got = tasks.create_task(back())
            await net.beat_until(got)
            assert got.result() == DATA

    asyncio.run(run())


async def test_a_put_goes_on_where_a_killed_controller_left_it(tmp_path: Path) -> None:
    async with file_net(tmp_path) as made, asyncio.TaskGroup() as tasks:
        task = tasks.create_task(put(made, DATA, transfer="mine"))
        await made.host.until_pieces(10)
        task.cancel()
        await asyncio.wait((task,))
        before = made.host.pieces
        assert made.host.left != []
        made.files = made.another()
        other = await put(made, DATA[:-1], transfer="mine")
        assert "another transfer" in message(other)
        assert await put(made, DATA, transfer="mine") == {"state": "put", "size": len(DATA)}
        assert made.host.pieces - before <= 21 - 10 + transfer.WINDOW
        assert (made.host.root / "a/b").read_bytes() == DATA
        # Once more, as of one that was killed before it heard of the end.
        now = made.host.pieces
        assert await put(made, DATA, transfer="mine") == {"state": "put", "size": len(DATA)}
        assert (made.host.pieces, made.host.file_root.puts) == (now, 1)


async def test_a_get_goes_on(tmp_path: Path) -> None:
    async with file_net(tmp_path) as made:
        (made.host.root / "f").write_bytes(DATA)
        got = await made.files.get("g1", "f", transfer="mine")
        begin = b""
        async for chunk in got.chunks:
            begin += chunk
            if len(begin) >= 5 * PIECE:
                break
        await got.chunks.aclose()
        (made.host.root / "f").write_bytes(b"something else")  # what lies ready stays as it is
        again = await made.another().get("g1", "f", transfer="mine", offset=len(begin))
        assert begin + await whole(again.chunks) == DATA
        assert again.chunks.digest == got.chunks.digest
        await made.host.until_empty()
        with pytest.raises(UsageError, match="no byte 99"):
            await made.files.get("g1", "f", offset=99)


async def test_one_that_is_not_wanted_any_more_leaves_nothing(tmp_path: Path) -> None:
    async with file_net(tmp_path) as made, asyncio.TaskGroup() as tasks:
        task = tasks.create_task(put(made, DATA))
        await made.host.until_pieces(3)
        task.cancel()
        await asyncio.wait((task,))
        await made.host.until_empty()
        (made.host.root / "f").write_bytes(DATA)
        for begins in (False, True):
            got = await made.files.get("g1", "f")
            if begins:
                await anext(got.chunks)
            await got.chunks.aclose()
            await made.host.until_empty()


async def test_an_end_that_takes_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_files, "ANSWER_WITHIN", 0.01)
    async with file_net(tmp_path) as made, asyncio.TaskGroup() as tasks:
        made.host.file_root.go.clear()
        task = tasks.create_task(put(made, b"abc"))
        await made.net.until_sent("ANSWER", 6)
        assert not task.done()
        made.host.file_root.go.set()
        assert await task == {"state": "put", "size": 3}
        made.host.file_root.go.clear()
        got = tasks.create_task(made.files.get("g1", "a/b"))
        await made.net.until_sent("ANSWER", 12)
        made.host.file_root.go.set()
        assert await whole((await got).chunks) == b"abc"


async def test_transfers_that_nobody_asks_for_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_files, "IDLE", 10.0)
    monkeypatch.setattr(node_files, "MOST_TRANSFERS", 2)
    loop, passed = asyncio.get_running_loop(), 0.0
    now = loop.time
    monkeypatch.setattr(loop, "time", lambda: now() + passed)
    async with file_net(tmp_path) as made:
        (made.host.root / "f").write_bytes(DATA)
        for number in range(2):
            await made.files.get("g1", "f", transfer=str(number))
        with pytest.raises(UsageError, match="in transit"):
            await made.files.get("g1", "f", transfer="3")
        passed = 10.0
        await made.host.until_empty()
        late = await made.files.get("g1", "f", transfer="0")
        assert await whole(late.chunks) == DATA


async def test_a_guest_that_goes_leaves_the_others(tmp_path: Path) -> None:
    async with file_net(tmp_path, "g1", "g2") as made, asyncio.TaskGroup() as tasks:
        for one in made.hosts.values():
            one.file_root.go.clear()
        task = tasks.create_task(made.files.put("all", "f", pieces_of(DATA), is_tree=False))
        await made.hosts["g1"].until_pieces(21)
        made.net.requester.handle_loss("g1")
        for one in made.hosts.values():
            one.file_root.go.set()
        outcomes = await task
        assert "g1 has left" in message(outcomes["g1"])
        assert outcomes["g2"]["state"] == "put"


async def test_one_slow_guest_does_not_hold_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PATIENCE", 2.0)
    async with file_net(tmp_path, "g1", "g2") as made:

        async def never(_: Mapping[str, object], __: bytes) -> Reply:
            await made.hosts["g2"].file_root.go.wait()
            return Reply({"offset": 0})

        made.hosts["g2"].lies["file-put-piece"] = never
        made.hosts["g2"].file_root.go.clear()
        outcomes = await made.files.put("g*", "f", pieces_of(DATA), is_tree=False)
        assert outcomes["g1"]["state"] == "put"
        assert "not answered within" in message(outcomes["g2"])
        made.hosts["g2"].file_root.go.set()


# What does not fit, or may not be.


@pytest.mark.parametrize("path", ["", ".", "../a", "a/../b", "/etc/../a", "a\0b", "x" * 300, "/"])
async def test_paths_that_are_none(tmp_path: Path, path: str) -> None:
    async with file_net(tmp_path) as made:
        with pytest.raises(UsageError):
            await put(made, b"", path)
        reported = {"transfer": "t", "path": path, "kind": "file", "mode": 0, "size": 0}
        with pytest.raises(UsageError):
            await made.host.files.verbs["file-put-begin"]({**reported, "digest": "0" * 64}, b"")
        await made.host.until_empty()


async def test_what_is_asked_wrongly(tmp_path: Path) -> None:
    async with file_net(tmp_path, "g1", "g2") as made:
        for selector in ("g7", "g*,site=x"):
            with pytest.raises(UsageError):
                await made.files.put(selector, "f", pieces_of(b""), is_tree=False)
        for vm in ("g*", "all"):
            with pytest.raises(UsageError, match="no guest"):
                await made.files.get(vm, "f")
        with pytest.raises(UsageError, match="no guest matches 'g7'"):
            await made.files.get("g7", "f")
        for more in ({"mode": 0o4755}, {"size": 2}, {"size": 4}, {"transfer": "a\n"}):
            with pytest.raises(UsageError):
                await put(made, b"abc", **more)
        with pytest.raises(UsageError, match="64 GiB"):
            await put(made, b"abc", size=tar_trees.MOST_BYTES + 1)
        with pytest.raises(OutputFileError, match="has no f"):
            await made.files.get("g1", "f")
        await made.host.until_empty()


async def test_a_machine_that_is_off(tmp_path: Path) -> None:
    async with file_net(tmp_path) as made:
        made.host.file_root.fault = UsageError("the machine is not running")
        assert message(await put(made, b"abc")) == "the machine is not running"
        with pytest.raises(UsageError, match="is not running"):
            await made.files.get("g1", "f")
        await made.host.until_empty()


async def test_the_guests_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with file_net(tmp_path) as made:

        def full(_: int, __: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        from boincvm.node import transfers

        with monkeypatch.context() as patch:
            patch.setattr(transfers.os, "write", _only_for(made.host.spool, full))
            outcome = await put(made, DATA)
        assert outcome["error"]["code"] == ExitCode.HOST_DISK_FULL  # type: ignore[index]
        await made.host.until_empty()
        huge = {"transfer": "t", "path": "a", "kind": "tree", "mode": 0, "digest": "0" * 64}
        size = tar_trees.MOST_BYTES
        monkeypatch.setattr(
            transfer_rules.os,
            "statvfs",
            lambda _: os.statvfs_result((512, 512, 9, 9, 9, 9, 9, 9, 9, 9)),
        )
        with pytest.raises(HostDiskFullError):
            await made.host.files.verbs["file-put-begin"]({**huge, "size": size}, b"")


def _only_for(spool: Path, fault):  # type: ignore[no-untyped-def]
    real = os.write

    def write(descriptor: int, data: object) -> int:
        if str(Path(f"/proc/self/fd/{descriptor}").readlink()).startswith(str(spool)):
            fault(descriptor, data)
        return real(descriptor, data)  # type: ignore[arg-type]

    return write


async def test_the_controllers_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with file_net(tmp_path) as made:

        def full(_: int, __: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(spool.os, "write", full)
        with pytest.raises(HostDiskFullError):
            await put(made, DATA)


async def test_a_source_that_breaks(tmp_path: Path) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"abc"
        raise ConnectionResetError("the client closed the connection")

    async with file_net(tmp_path) as made:
        with pytest.raises(ConnectionResetError):
            await made.files.put("g1", "f", source(), is_tree=False)
        assert made.host.pieces == 0


async def test_a_spool_is_emptied_when_the_shim_starts(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    (spool / "7" / "tree").mkdir(parents=True)
    (spool / "7" / "tree" / "f").write_bytes(b"left")
    (spool / "7" / "tree").chmod(0o500)
    made = NodeFiles(None, spool)  # type: ignore[arg-type]
    assert list(spool.iterdir()) == []
    assert spool.stat().st_mode & 0o777 == 0o700
    await made.close()


# A guest, and a controller, that lie.


READY = {"is_ready": True, "kind": "file", "mode": 0o644, "size": 3 * PIECE, "digest": "0" * 64}


@pytest.mark.parametrize(
    "table",
    [
        {**READY, "kind": "pipe"},
        {**READY, "mode": 0o4755},
        {**READY, "mode": -1},
        {**READY, "size": tar_trees.MOST_BYTES + 1},
        {**READY, "size": "3"},
        {**READY, "digest": "0" * 63},
        {**READY, "digest": None},
    ],
)
async def test_a_guest_that_offers_nonsense(tmp_path: Path, table: dict[str, object]) -> None:
    async with file_net(tmp_path) as made:

        async def lie(_: Mapping[str, object], __: bytes) -> Reply:
            return Reply(table)

        made.host.lies["file-get-begin"] = lie
        with pytest.raises(GuestProtocolError):
            await made.files.get("g1", "f")


@pytest.mark.parametrize(
    ("offset", "size", "kind"),
    [
        (0, PIECE, OutputFileError),  # the right sizes, other bytes
        (1, PIECE, GuestProtocolError),
        (0, PIECE - 1, GuestProtocolError),
        (0, PIECE + 1, GuestProtocolError),
        (0, 0, GuestProtocolError),
    ],
)
async def test_a_guest_that_sends_something_else(
    tmp_path: Path, offset: int, size: int, kind: type[BoincvmError]
) -> None:
    async with file_net(tmp_path) as made:

        async def offer(_: Mapping[str, object], __: bytes) -> Reply:
            return Reply(READY)

        async def lie(table: Mapping[str, object], _: bytes) -> Reply:
            at = table["offset"]
            assert isinstance(at, int)
            return Reply({"offset": at + offset}, bytes(size))

        made.host.lies |= {"file-get-begin": offer, "file-get-piece": lie}
        got = await made.files.get("g1", "f")
        with pytest.raises(kind):
            await whole(got.chunks)


@pytest.mark.parametrize("offset", [-1, None, "0", len(DATA) + 1])
async def test_a_guest_that_has_what_cannot_be(tmp_path: Path, offset: object) -> None:
    async with file_net(tmp_path) as made:

        async def lie(_: Mapping[str, object], __: bytes) -> Reply:
            return Reply({"offset": offset})

        made.host.lies["file-put-begin"] = lie
        assert "is invalid" in message(await put(made, DATA))


async def test_a_controller_that_lies(tmp_path: Path) -> None:
    async with file_net(tmp_path) as made:
        verbs = made.host.files.verbs
        reported = {"transfer": "t", "path": "a", "kind": "file", "mode": 0o644, "size": 4}
        digest = {"digest": "0" * 64}
        for wrong in (
            {"transfer": ""}, {"transfer": 7}, {"kind": 1}, {"mode": 0o1000}, {"size": -1},
            {"size": tar_trees.MOST_BYTES + 1}, {"digest": "G" * 64}, {"path": None},
        ):  # fmt: skip
            with pytest.raises(UsageError):
                await verbs["file-put-begin"]({**reported, **digest, **wrong}, b"")
        await made.host.until_empty()
        await verbs["file-put-begin"]({**reported, **digest}, b"")
        for offset, data in ((0, b"12345"), (4, b"1"), (9 << 20, b""), (-1, b"1"), (None, b"1")):
            with pytest.raises(UsageError):
                await verbs["file-put-piece"]({"transfer": "t", "offset": offset}, data)
        with pytest.raises(UsageError, match="another transfer"):
            await verbs["file-get-piece"]({"transfer": "t", "offset": 0}, b"")
        await verbs["file-put-piece"]({"transfer": "t", "offset": 0}, b"1234")
        with pytest.raises(BoincvmError, match="differs from what was sent"):
            await verbs["file-put-end"]({"transfer": "t"}, b"")
        for verb in ("file-put-end", "file-put-piece", "file-get-piece"):
            with pytest.raises(UsageError, match="no such transfer"):
                await verbs[verb]({"transfer": "t", "offset": 0}, b"")
        assert (list(made.host.root.iterdir()), made.host.left) == ([], [])


async def test_a_guest_that_is_started_anew_has_nothing_of_it(tmp_path: Path) -> None:
    async with file_net(tmp_path) as made, asyncio.TaskGroup() as tasks:
        made.host.file_root.go.clear()
        task = tasks.create_task(put(made, DATA))
        await made.host.until_pieces(21)
        made.net.restart("g1")
        outcome = await task
        assert outcome["error"]["code"] == GuestDiedError.exit_code  # type: ignore[index]
