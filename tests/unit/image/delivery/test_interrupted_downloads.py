"""Downloads that break off, fail for the host's sake, or are two at once."""

import errno
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from boincvm.errors import (
    HostDiskFullError,
    HostError,
)
from boincvm.exit_codes import ExitCode
from boincvm.image import object_files, pack_format
from boincvm.image.delivery import blocks, download, patch, ways
from boincvm.image.delivery import server as web
from boincvm.image.delivery.fetch import fetch_image, update_image
from boincvm.image.delivery.index import INDEX, SIGNATURE, decode_index
from boincvm.image.delivery.publish import publish_images
from boincvm.image.progress import Progress
from boincvm.image.store import ImageStore
from support.command_line import BOINCVM
from support.image_server import Request, broken_off, whole
from support.small_disk import needs_namespaces, small_disk
from support.versions import build

pytestmark = pytest.mark.usefixtures("own_home", "digest")


def test_a_later_attempt_goes_on(server, store, trust):
    server.faults["tar.gz"] = broken_off(1000)
    with pytest.raises(HostError, match="broke off") as caught:
        fetch_image(server.url, "sci", store, trust=trust)
    assert "what has arrived is kept" in caught.value.hint
    server.faults.clear()
    fetched = fetch_image(server.url, "sci", store, trust=trust)
    assert fetched.downloaded < fetched.whole - 200_000


def test_what_was_left_may_be_spoiled(server, store, trust):
    server.faults["tar.gz"] = broken_off(1000)
    with pytest.raises(HostError):
        fetch_image(server.url, "sci", store, trust=trust)
    server.faults.clear()
    (part,) = (store.root / "downloads").iterdir()
    part.write_bytes(bytes(part.stat().st_size))
    assert fetch_image(server.url, "sci", store, trust=trust).way == "whole"


def test_blocks_that_have_arrived_are_not_downloaded_again(server, store, trust, monkeypatch):
    build(store, "mine", 3)
    asked = [0]

    def breaks_off(request: Request, name: str) -> bool:
        asked[0] += 1
        if asked[0] > 2:
            request.answer(whole(request.server, name), most=0)
        return asked[0] > 2

    monkeypatch.setattr(blocks, "LONGEST_GAP", -1)
    server.faults[".blocks"] = breaks_off
    with pytest.raises(HostError, match="broke off"):
        fetch_image(server.url, "sci", store, trust=trust)
    # The first is shorter than a block; such are read again.
    _, second, *_ = (asked for name, asked in server.asked if name.endswith(".blocks"))
    server.faults.clear()
    server.asked.clear()
    assert fetch_image(server.url, "sci", store, trust=trust).way == "blocks"
    again = [asked for name, asked in server.asked if name.endswith(".blocks")]
    assert again
    assert second not in again


def test_a_disk_that_is_full_in_the_middle(server, store, trust, monkeypatch):
    """What has arrived goes, so that others have the space."""
    pieces = web.Server.pieces

    def until_full(self: web.Server, name: str, begin: int, end: int, size: int) -> Iterator[bytes]:
        yield next(pieces(self, name, begin, end, size))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(web.Server, "pieces", until_full)
    with pytest.raises(HostDiskFullError):
        fetch_image(server.url, "sci", store, trust=trust)
    assert store.names() == []
    assert list((store.root / "downloads").iterdir()) == []


TWICE = """
fetch() { "$@"; echo "ended with $?"; }
fetch "$@"; ls -A home/data/images/downloads; rm filling; fetch "$@"
"""


@needs_namespaces
def test_a_real_disk_that_gets_full(server, trust, tmp_path):
    """What has arrived goes; with more space the next attempt succeeds."""
    disk, started = tmp_path / "disk", threading.Event()
    disk.mkdir()

    def fills(request: Request, name: str) -> bool:
        del server.faults["tar.gz"]
        assert started.wait(60)
        full = Path(f"/proc/{process.pid}/root/{disk}/filling")
        with full.open("wb", buffering=0) as stream, suppress(OSError):
            while stream.write(bytes(65536)):
                pass
        return False

    server.faults["tar.gz"] = fills
    fetch = [BOINCVM, "image", "fetch", server.url, "sci", "--key", str(trust.key)]
    process = subprocess.Popen(
        [*small_disk("20m", disk), "sh", "-c", f"cd {disk}; {TWICE}", "sh", *fetch],
        env={**os.environ, "BOINCVM_HOME": str(disk / "home")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started.set()
    with process:
        try:
            stdout, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    first, second = stdout.splitlines()[0], stdout.splitlines()[1:]
    assert first == f"ended with {int(ExitCode.HOST_DISK_FULL)}", stderr
    assert "No space left on device" in stderr
    assert second[0].startswith("image sci is here")
    assert second[1] == "ended with 0"


@pytest.mark.parametrize("way", ["patch", "blocks", "whole"])
def test_a_disk_that_is_full_while_the_image_is_made(
    way, server, store, trust, www, tmp_path, monkeypatch
):
    """The version before stays, and nothing is left of the new one."""
    former = fetch_image(server.url, "sci", store, trust=trust).digest
    publisher = ImageStore(tmp_path / "publisher")
    newest = build(publisher, "sci", 1)
    publish_images(["sci"], www, tmp_path / "key.pem", publisher)
    for path in www.glob("patches/*" if way != "patch" else "none"):
        path.unlink()
    for path in www.glob("images/*.map" if way == "whole" else "none"):
        path.unlink()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        for module in (pack_format, patch, blocks, object_files):
            patched.setattr(module, "finish_file", full)
        with pytest.raises(HostDiskFullError):
            update_image("sci", store)
    assert store.digest_of("sci") == former
    assert [path.name for path in (store.root / "objects").iterdir()] == [former]
    assert not any(path.is_dir() for path in (store.root / "downloads").iterdir())
    updated = update_image("sci", store)
    assert (updated.way, updated.digest, store.digest_of("sci")) == (way, newest, newest)
    assert list((store.root / "downloads").iterdir()) == []


def test_a_download_stays_if_its_use_is_interrupted(server, store, trust, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ways, "unpack_image", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch_image(server.url, "sci", store, trust=trust)
    (part,) = (store.root / "downloads").iterdir()
    # What is here already needs no more space.
    index = decode_index((server.directory / INDEX).read_bytes(), "www")
    needed = index.images["sci"][0].size + download._MARGIN
    monkeypatch.setattr(download, "free_space", lambda _path: needed)
    server.asked.clear()
    assert fetch_image(server.url, "sci", store, trust=trust).way == "whole"
    assert not any("tar.gz" in name for name in server.names())
    assert not part.exists()


def test_a_patch_stays_if_its_use_is_interrupted(server, store, trust, www, tmp_path, monkeypatch):
    fetch_image(server.url, "sci", store, trust=trust)
    publisher = ImageStore(tmp_path / "publisher")
    build(publisher, "sci", 1)
    publish_images(["sci"], www, tmp_path / "key.pem", publisher)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ways, "apply_patch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            update_image("sci", store)
    server.asked.clear()
    assert update_image("sci", store).way == "patch"
    assert server.names() == [SIGNATURE, INDEX]
    assert list((store.root / "downloads").iterdir()) == []


def test_two_downloads_of_one_image(server, store, trust):
    """The second waits, and finds the image."""
    asked, waits = threading.Event(), threading.Event()

    def answer(request: Request, name: str) -> bool:
        asked.set()
        assert waits.wait(60)
        return False

    server.faults["tar.gz"] = answer
    ways: dict[str, str] = {}

    def download(who: str, progress: object = None) -> None:
        ways[who] = fetch_image(server.url, "sci", store, trust=trust, progress=progress).way

    class Waiting(Progress):
        def note(self, text: str) -> None:
            waits.set()

    threads = [threading.Thread(target=download, args=["first"])]
    threads[0].start()
    assert asked.wait(60)
    threads.append(threading.Thread(target=download, args=["second", Waiting(None)]))
    threads[1].start()
    for thread in threads:
        thread.join(60)
    assert ways == {"first": "whole", "second": "present"}
    assert sum("tar.gz" in name for name in server.names()) == 1
