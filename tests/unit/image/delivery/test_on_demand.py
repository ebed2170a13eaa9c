"""Images whose disk is read on demand: fetched, read, completed, and read from bad servers."""

import asyncio
import errno
import hashlib
import shutil
import socket
import threading
from collections.abc import Callable, Coroutine
from contextlib import closing, suppress
from pathlib import Path

import pytest

from boincvm.errors import (
    HostDiskFullError,
    HostError,
    ImageDamagedError,
    ImageMissingError,
    UsageError,
)
from boincvm.hypervisor.qcow2 import check_disk
from boincvm.hypervisor.qemu.block_server import serve_blocks
from boincvm.image.delivery import keys, root_part
from boincvm.image.delivery.fetch import Fetched, fetch_image, update_image
from boincvm.image.delivery.on_demand import READ_AHEAD, OnDemandRoot, open_on_demand
from boincvm.image.delivery.publish import publish_images
from boincvm.image.delivery.server import PATIENCE, Patience
from boincvm.image.delivery.trust import Trust
from boincvm.image.filenames import ON_DEMAND, ROOT, ROOT_PART
from boincvm.image.listing import describe, list_images
from boincvm.image.store import ImageStore
from support.image_server import Fault, ImageServer, Request, other_range, refusing, whole
from support.partial_images import BLOCK, build_partial, content, root_of_object, served_node

pytestmark = pytest.mark.usefixtures("own_home", "digest")
HASTE = Patience(stall=0.3, answer=0.6)
LIMIT = 60.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a publisher's images, key and web pages, made once."""
    directory = tmp_path_factory.mktemp("made")
    keys.make_key(directory / "key.pem")
    publisher = ImageStore(directory / "publisher")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOINCVM_HOME", str(directory / "home"))
        build_partial(publisher, "sci")
        publish_images(["sci"], directory / "www", directory / "key.pem", publisher)
    return directory


@pytest.fixture
def key(made: Path) -> Path:
    return made / "key.pem"


@pytest.fixture
def www(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "www", tmp_path / "www"))


@pytest.fixture
def publisher(made: Path, tmp_path: Path) -> ImageStore:
    return ImageStore(Path(shutil.copytree(made / "publisher", tmp_path / "publisher")))


@pytest.fixture
def digest(publisher: ImageStore, www: Path) -> str:
    """Return the digest of the image that is published in `www`."""
    return publisher.digest_of("sci")


@pytest.fixture
def disk(publisher: ImageStore, digest: str) -> bytes:
    return root_of_object(publisher, digest).read_bytes()


@pytest.fixture
def fetched(server: ImageServer, store: ImageStore, trust: Trust) -> Fetched:
    """Fetch the image on demand."""
    return fetch_image(server.url, "sci", store, on_demand=True, trust=trust)


class Lines:
    """What was reported."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.has_come = threading.Event()

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        self.has_come.set()


def read_with(
    store: ImageStore,
    work: Callable[[OnDemandRoot], Coroutine[None, None, bytes]],
    report: Callable[[str], None] = lambda _: None,
    patience: Patience = PATIENCE,
) -> bytes:
    """Return what `work` reads of the image's disk. Raises what ended it."""
    with store.open("sci", partly=True) as image:
        root = OnDemandRoot(
            image.directory, image.digest, report=report, patience=patience, first_pause=0.01
        )

    async def main() -> bytes:
        async with asyncio.timeout(LIMIT):
            return await root.guard(work(root))

    with closing(root):
        return asyncio.run(main())


async def all_of(root: OnDemandRoot) -> bytes:
    step = 1 << 16
    return b"".join(
        [await root.read(at, min(step, root.size - at)) for at in range(0, root.size, step)]
    )


async def first(root: OnDemandRoot) -> bytes:
    return await root.read(0x50000, BLOCK)


def bytes_asked(server: ImageServer) -> int:
    """Return how many bytes of the file of blocks were asked for."""
    total = 0
    for name, asked in server.asked:
        if name.endswith(".blocks"):
            first_byte, _, last = asked.removeprefix("bytes=").partition("-")
            total += int(last) + 1 - int(first_byte)
    return total


def files_of(store: ImageStore, digest: str) -> set[str]:
    return {path.name for path in (store.root / "objects" / digest).iterdir()}


def test_only_what_a_machine_starts_with_is_fetched(fetched, store, digest, server, disk):
    assert fetched.way == "on demand"
    assert "starts on demand" in fetched.text
    assert fetched.downloaded < fetched.whole / 10
    assert files_of(store, digest) == {"manifest.json", "kernel", "initrd", ON_DEMAND, ROOT_PART}
    assert not [name for name in server.names() if ".tar." in name or name.endswith(".map")]
    with pytest.raises(ImageMissingError, match="only a part is here"):
        store.open("sci")
    with store.open("sci", partly=True) as image:
        assert image.is_partial
        assert image.root.stat().st_size == len(disk)


def test_a_part_costs_a_part(fetched, store, server, disk):
    server.asked.clear()
    assert read_with(store, first) == disk[0x50000:][:BLOCK]
    assert 0 < bytes_asked(server) <= (READ_AHEAD + 1) * (BLOCK + 64)
    server.asked.clear()
    assert read_with(store, first) == disk[0x50000:][:BLOCK]
    assert server.asked == []


def test_each_part_has_the_right_content(fetched, store, disk):
    async def odd(root: OnDemandRoot) -> bytes:
        ranges = [(0, 1), (5, 10_000), (len(disk) - 512, 512), (BLOCK - 1, 2), (0x80000, 1 << 20)]
        parts = await asyncio.gather(*(root.read(*one) for one in ranges))
        for (at, length), part in zip(ranges, parts, strict=True):
            assert part == disk[at : at + length]
        return b""

    read_with(store, odd)


def test_a_block_that_many_wait_for_is_read_once(fetched, store, server, disk):
    async def many(root: OnDemandRoot) -> bytes:
        parts = await asyncio.gather(*(first(root) for _ in range(20)))
        assert set(parts) == {disk[0x50000:][:BLOCK]}
        return b""

    server.asked.clear()
    read_with(store, many)
    assert len(server.asked) == 1


def test_qemu_reads_the_image(fetched, store, tmp_path):
    target = tmp_path / "raw"

    async def convert(root: OnDemandRoot) -> bytes:
        ours, its = socket.socketpair()
        served = asyncio.ensure_future(serve_blocks(ours, root))
        process = await asyncio.create_subprocess_exec(
            "qemu-img", "convert", "-O", "raw", served_node(its, "qcow2"), target,
            pass_fds=[its.fileno()],
        )  # fmt: skip
        its.close()
        assert await process.wait() == 0
        await served
        return b""

    read_with(store, convert)
    assert target.read_bytes() == content()


def test_when_all_of_it_is_here_it_is_an_ordinary_image(fetched, store, digest, disk):
    with store.open("sci", partly=True) as image, open_on_demand(store, image) as root:
        assert asyncio.run(all_of(root)) == disk
    assert files_of(store, digest) == {"manifest.json", "kernel", "initrd", ROOT}
    with store.open("sci") as image:
        assert not image.is_partial
        assert image.root.read_bytes() == disk


def test_as_long_as_a_block_is_missing_it_stays_partial(fetched, store):
    with store.open("sci", partly=True) as image, open_on_demand(store, image) as root:
        asyncio.run(first(root))
    with store.open("sci", partly=True) as image:
        assert image.is_partial


def test_what_was_lost_or_altered_here_is_read_again(fetched, store, server, digest, disk):
    read_with(store, first)
    part = store.root / "objects" / digest / ROOT_PART
    with part.open("r+b") as stream:
        stream.seek(0x50000 + 17)
        stream.write(b"altered")
    assert read_with(store, first) == disk[0x50000:][:BLOCK]
    part.unlink()
    server.asked.clear()
    assert read_with(store, first) == disk[0x50000:][:BLOCK]
    assert server.asked


def test_a_lost_header_is_there_before_the_machine(fetched, store, digest, disk):
    part = store.root / "objects" / digest / ROOT_PART
    for spoil in (part.unlink, lambda: part.write_bytes(bytes(len(disk)))):
        spoil()
        with store.open("sci", partly=True) as image, open_on_demand(store, image):
            check_disk(image.root)


def test_two_machines_at_once(fetched, store, disk):
    async def both(root: OnDemandRoot) -> bytes:
        with store.open("sci", partly=True) as image:
            other = OnDemandRoot(image.directory, image.digest, report=print)
        with closing(other):
            one, two = await asyncio.gather(all_of(root), all_of(other))
        assert one == two == disk
        return one

    read_with(store, both)


def test_without_the_server_what_is_here_can_be_read_and_the_rest_waits(
    fetched, store, server, disk
):
    report = Lines()

    async def offline(root: OnDemandRoot) -> bytes:
        here = await first(root)
        server.faults[".blocks"] = refusing(503)
        waiting = asyncio.ensure_future(root.read(0x80000, BLOCK))
        await asyncio.to_thread(report.has_come.wait, LIMIT)
        assert await first(root) == here
        assert not waiting.done()
        server.faults.clear()
        return await waiting

    assert read_with(store, offline, report) == disk[0x80000:][:BLOCK]
    away, back = report.lines
    assert "may have to wait for parts of its disk" in away
    assert "503" in away
    assert "can be read again" in back


def silent(request: Request, name: str) -> bool:
    request.server.ended.wait(60)
    return True


def cut_off(request: Request, name: str) -> bool:
    request.answer(whole(request.server, name), most=1000)
    return True


def times(count: int, fault: Fault) -> Fault:
    left = [count]

    def answer(request: Request, name: str) -> bool:
        left[0] -= 1
        return left[0] >= 0 and fault(request, name)

    return answer


def altered_part(request: Request, name: str) -> bool:
    data = bytes(255 - byte for byte in whole(request.server, name))
    request.answer(data)
    return True


def without_ranges(request: Request, name: str) -> bool:
    request.answer(whole(request.server, name), ranges=False)
    return True


@pytest.mark.parametrize(
    ("fault", "count"),
    [(silent, 1), (cut_off, 6), (refusing(503), 6), (altered_part, 3), (other_range, 3)],
)
def test_a_server_that_recovers(fault, count, fetched, store, server, disk):
    server.faults[".blocks"] = times(count, fault)
    report = Lines()
    patience = HASTE if fault is silent else PATIENCE
    assert read_with(store, first, report, patience) == disk[0x50000:][:BLOCK]
    assert len(report.lines) == 2


def test_a_connection_that_was_closed_is_not_worth_a_word(fetched, store, server, disk):
    server.faults[".blocks"] = times(1, cut_off)
    report = Lines()
    assert read_with(store, first, report) == disk[0x50000:][:BLOCK]
    assert report.lines == []


def test_a_fault_of_ours_ends_the_machine(fetched, store, monkeypatch):
    def broken(*_arguments: object) -> bytes:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(root_part, "expanded", broken)
    with pytest.raises(ZeroDivisionError):
        read_with(store, first)


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (altered_part, ImageDamagedError, "is not what its index says"),
        (other_range, HostError, "other bytes than asked"),
        (without_ranges, HostError, "sends whole files only"),
        (refusing(403), HostError, "answers with 403"),
        (refusing(404), ImageMissingError, "no longer has the rest"),
    ],
)
def test_a_server_that_has_other_blocks_ends_the_machine(
    fault, error, message, fetched, store, server, digest
):
    server.faults[".blocks"] = fault
    before = (store.root / "objects" / digest / ROOT_PART).read_bytes()
    with pytest.raises(error, match=message):
        read_with(store, first)
    assert (store.root / "objects" / digest / ROOT_PART).read_bytes() == before


def test_a_machine_that_ends_while_it_waits(fetched, store, server):
    server.faults[".blocks"] = silent
    report = Lines()

    async def ends(root: OnDemandRoot) -> bytes:
        waiting = asyncio.ensure_future(first(root))
        await asyncio.to_thread(report.has_come.wait, LIMIT)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        return b"ended"

    assert read_with(store, ends, report, HASTE) == b"ended"
    check_threads()


def check_threads() -> None:
    """Check that all threads which read blocks end."""
    for thread in threading.enumerate():
        if thread.name == "boincvm-blocks":
            thread.join(LIMIT)
            assert not thread.is_alive()


def test_a_full_disk_ends_the_machine(fetched, store, monkeypatch):
    def full(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(root_part, "write_at", full)
    with pytest.raises(HostDiskFullError, match="the host's disk is full"):
        read_with(store, first)


def test_all_of_it_can_be_fetched_later(fetched, store, server, trust, disk):
    read_with(store, first)
    assert fetch_image(server.url, "sci", store, trust=trust).way in ("blocks", "whole")
    with store.open("sci") as image:
        assert image.root.read_bytes() == disk
    again = fetch_image(server.url, "sci", store, on_demand=True, trust=trust)
    assert again.way == "present"


def test_an_update_stays_on_demand_and_keeps_what_is_equal(
    fetched, store, server, publisher, www, key
):
    read_with(store, all_of)
    newer = build_partial(publisher, "sci", 1)
    publish_images(["sci"], www, key, publisher)
    assert update_image("sci", store).way == "on demand"
    assert store.digest_of("sci") == newer
    server.asked.clear()
    assert read_with(store, all_of) == root_of_object(publisher, newer).read_bytes()
    assert bytes_asked(server) < (READ_AHEAD + 1) * (BLOCK + 64)


def test_a_second_fetch_finds_it(fetched, store, server, trust):
    server.asked.clear()
    again = fetch_image(server.url, "sci", store, on_demand=True, trust=trust)
    assert again.way == "present"
    assert not [name for name in server.names() if "images/" in name]


def test_other_images_of_the_host_give_their_blocks(store, server, trust, publisher, www, key):
    build_partial(store, "mine", 1)
    fetch_image(server.url, "sci", store, on_demand=True, trust=trust)
    server.asked.clear()
    read_with(store, all_of)
    assert bytes_asked(server) < (READ_AHEAD + 1) * (BLOCK + 64)


def test_a_digest_alone_does_not_protect_parts(store, server, digest):
    with pytest.raises(UsageError, match="--on-demand with --digest"):
        fetch_image(server.url, "sci", store, on_demand=True, trust=Trust(digest=digest))


def test_an_image_without_a_start_file(store, server, trust, www, key, monkeypatch, publisher):
    build_partial(publisher, "old", 2)
    monkeypatch.setattr("boincvm.image.delivery.publish.can_be_on_demand", lambda _: False)
    publish_images(["old"], www, key, publisher)
    with pytest.raises(UsageError, match="cannot be read on demand"):
        fetch_image(server.url, "old", store, on_demand=True, trust=trust)


def test_removed_images_leave_nothing(fetched, store, digest):
    store.remove("sci")
    assert not (store.root / "objects" / digest).exists()


def test_a_list_of_blocks_that_was_altered_here(fetched, store, digest):
    path = store.root / "objects" / digest / ON_DEMAND
    data = path.read_bytes()
    for bad in (b"", data[:-1], data + b"x", b"{}\n" + data.partition(b"\n")[2], data[:40]):
        path.unlink()
        path.write_bytes(bad)
        with pytest.raises(ImageDamagedError, match="is damaged"):
            read_with(store, first)


def test_it_is_listed_as_what_it_is(fetched, store):
    (listed,) = list_images(store)
    assert listed.is_partial
    assert listed.as_json()["on_demand"] is True
    with store.open("sci", partly=True) as image:
        assert "read on demand; only a part is here" in describe(image)


def test_an_altered_kernel_is_not_started(fetched, store, digest):
    path = store.root / "objects" / digest / "kernel"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1] + b"!")
    with pytest.raises(ImageDamagedError, match="was altered"):
        store.open("sci", partly=True)


def test_no_threads_are_left(fetched, store):
    read_with(store, first)
    check_threads()


def test_the_end_of_a_completion_that_was_interrupted(fetched, store, digest, disk, monkeypatch):
    with store.open("sci", partly=True) as image:
        root = OnDemandRoot(image.directory, image.digest)
        with closing(root):
            asyncio.run(all_of(root))
        # Killed between the two steps.
        (image.directory / ROOT_PART).rename(image.directory / ROOT)
    assert read_with(store, first) == disk[0x50000:][:BLOCK]
    with store.open("sci", partly=True) as image, open_on_demand(store, image) as root:
        asyncio.run(all_of(root))
    with store.open("sci") as image:
        assert hashlib.sha256(image.root.read_bytes()).digest() == hashlib.sha256(disk).digest()
