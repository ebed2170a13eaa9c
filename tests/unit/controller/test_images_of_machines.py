"""Images that are made of the disks of machines."""

import asyncio
import threading
from pathlib import Path

import pytest

from boincvm.controller.machines import machines
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import (
    UsageError,
)
from boincvm.image.store import ImageStore
from boincvm.shim.machine_directory import Status
from support.controller.machines import known, make
from support.controller.named_image import name_image
from support.packed_images import publish


async def test_a_machine_whose_disk_can_be_no_image(tmp_path: Path) -> None:
    all_of_them = known(tmp_path)
    all_of_them.load()
    source = make(all_of_them, "a")
    with pytest.raises(UsageError, match="a has not run, so it is as its image"):
        await all_of_them.make_image(source, "new")
    status = Status(image="digest", layers=("disk-1.qcow2",))
    source.set_status(status._replace(state=VmState.SAVED, saved=1))
    with pytest.raises(UsageError, match="a is saved"):
        await all_of_them.make_image(source, "new")
    source.set_status(status)
    with source.directory.held(), pytest.raises(UsageError, match="a is running"):
        await all_of_them.make_image(source, "new")
    with pytest.raises(UsageError, match="an image's name"):
        await all_of_them.make_image(source, "../new")


async def test_an_image_of_a_machine_takes_no_name_that_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --force. Machines of an image that is replaced keep what it was."""
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    made: list[str] = []

    def image_of(_directory: object, _definition: object, name: str) -> str:
        made.append(name)
        return "digest"

    monkeypatch.setattr(machines, "_image_of", image_of)
    names = ImageStore().root / "names"
    names.mkdir(parents=True)
    for name in ("taken", "own"):
        (names / name).touch()
    all_of_them = known(tmp_path)
    all_of_them.load()
    source = make(all_of_them, "a", image="own")
    source.set_status(Status(image="digest", layers=("disk-1.qcow2",), was_shut_down=True))
    for name in ("taken", "own"):
        with pytest.raises(UsageError, match=f"there is an image {name} already"):
            await all_of_them.make_image(source, name)
    assert made == []
    await all_of_them.make_image(source, "taken", force=True)
    await all_of_them.make_image(source, "own", force=True)
    await all_of_them.make_image(source, "new")
    assert made == ["taken", "own", "new"]


async def test_an_image_is_made_only_of_a_machine_that_was_shut_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a journal, a file system that was not written in full may be broken."""
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(machines, "_image_of", lambda *_: "digest")
    name_image()
    all_of_them = known(tmp_path)
    all_of_them.load()
    source = make(all_of_them, "a")
    orderly = Status(image="digest", layers=("disk-1.qcow2",), was_shut_down=True)
    for status in (
        orderly._replace(was_shut_down=False),  # boincvm stop --now
        orderly._replace(state=VmState.ABORTED, was_shut_down=False),
    ):
        source.set_status(status)
        with pytest.raises(UsageError, match="a was not shut down by boincvm stop") as refused:
            await all_of_them.make_image(source, "new")
        assert "--now" not in refused.value.hint
        assert "boincvm start a, boincvm stop a" in refused.value.hint
    source.set_status(orderly._replace(state=VmState.SAVED, saved=1))
    all_of_them.discard(source)
    with pytest.raises(UsageError, match="a was not shut down by boincvm stop"):
        await all_of_them.make_image(source, "new")
    source.set_status(orderly)
    with source.directory.held(), pytest.raises(UsageError, match="a is running") as refused:
        await all_of_them.make_image(source, "new")
    assert refused.value.hint == "shut it down first: boincvm stop a"
    assert await all_of_them.make_image(source, "new") == "digest"
    (source.directory.disk / "disk-1.qcow2").touch()
    clone = await all_of_them.clone(source, "b")
    assert await all_of_them.make_image(clone, "new") == "digest"


async def test_an_image_stays_as_long_as_a_machine_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    store = ImageStore()
    digest = publish(store, content=b"old")
    content = store.root / "objects" / digest
    first = known(tmp_path)
    first.load()
    source = make(first, "a", image="base")
    (source.directory.disk / "disk-1.qcow2").touch()
    # Its shim has come up, but of an older version: it has told the store nothing.
    source.set_status(Status(image=digest, layers=("disk-1.qcow2",), was_shut_down=True))
    all_of_them = known(tmp_path)
    assert all_of_them.load() == []
    source = all_of_them.required("a")
    publish(store, content=b"new")
    clone = await all_of_them.clone(source, "b")
    monkeypatch.setattr(
        "boincvm.image.from_disk.image_of_disk", lambda _store, _name, image, *_: image
    )
    assert await all_of_them.make_image(source, "made") == digest
    all_of_them.remove(source)
    await all_of_them.release_image(source)
    assert store.owners() == {digest: ["b"]}
    publish(store, content=b"newest")
    assert content.exists()
    all_of_them.remove(clone)
    await all_of_them.release_image(clone)
    assert not content.exists()


async def test_a_machine_is_held_until_its_image_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one who asked for it may be gone before that."""
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    begun, may_end = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def image_of(*_: object) -> str:
        threads.append(threading.current_thread())
        begun.set()
        assert may_end.wait(20)
        return "digest"

    monkeypatch.setattr(machines, "_image_of", image_of)
    name_image()
    all_of_them = known(tmp_path)
    all_of_them.load()
    source = make(all_of_them, "a")
    source.set_status(Status(image="digest", layers=("disk-1.qcow2",), was_shut_down=True))
    making = asyncio.ensure_future(all_of_them.make_image(source, "new"))
    try:
        assert await asyncio.to_thread(begun.wait, 20)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        assert source.directory.is_locked()
    finally:
        may_end.set()
    await asyncio.to_thread(threads[0].join, 20)
    assert not source.directory.is_locked()
