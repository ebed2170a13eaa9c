"""Servers of images that are broken, slow or hostile, and hosts on which a download fails."""

import errno
import hashlib
import json
import lzma
import threading
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from boincvm.errors import (
    BoincvmError,
    HostDiskFullError,
    HostError,
    ImageDamagedError,
    UsageError,
)
from boincvm.image.delivery import blocks, fetch, keys, patch
from boincvm.image.delivery import server as web
from boincvm.image.delivery.fetch import Trust, fetch_image, update_image
from boincvm.image.delivery.index import INDEX, SIGNATURE, decode_index
from boincvm.image.delivery.publish import publish_images
from boincvm.image.delivery.server import Patience
from boincvm.image.manifest import Manifest
from boincvm.image.store import ImageStore
from support.image_server import Fault, ImageServer, Request, serving
from support.versions import build

pytestmark = pytest.mark.usefixtures("own_home")
HASTE = Patience(stall=0.2, answer=0.5)
SPEED = Patience(window=0.2, least_rate=1 << 20)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_PAUSE", 0)


@pytest.fixture
def www(tmp_path: Path) -> Path:
    return tmp_path / "www"


@pytest.fixture
def digest(tmp_path: Path, www: Path) -> str:
    """Publish an image in `www`; return its digest."""
    publisher = ImageStore(tmp_path / "publisher")
    keys.make_key(tmp_path / "key.pem")
    digest = build(publisher, "sci", 0)
    publish_images(["sci"], www, tmp_path / "key.pem", publisher)
    return digest


@pytest.fixture
def trust(digest: str, tmp_path: Path) -> Trust:
    return Trust(keys.public_key(tmp_path / "key.pem"))


@pytest.fixture
def server(digest: str, www: Path) -> Iterator[ImageServer]:
    with serving(www) as found:
        yield found


def whole(server: ImageServer, name: str) -> bytes:
    return (server.directory / name).read_bytes()


def altered(request: Request, name: str) -> bool:
    content = bytearray(whole(request.server, name))
    content[len(content) // 2] ^= 1
    request.answer(bytes(content))
    return True


def swapped(request: Request, name: str) -> bool:
    content = whole(request.server, name)
    half = len(content) // 2
    request.answer(content[half : 2 * half] + content[:half] + content[2 * half :])
    return True


@pytest.mark.parametrize("fault", [altered, swapped])
def test_what_is_altered_is_refused_and_not_kept(fault, server, store, trust):
    server.faults["tar.gz"] = fault
    with pytest.raises(ImageDamagedError, match="is not what its index says"):
        fetch_image(server.url, "sci", store, trust=trust)
    assert store.names() == []
    assert list((store.root / "downloads").iterdir()) == []
    server.faults.clear()
    assert fetch_image(server.url, "sci", store, trust=trust).way == "whole"


@pytest.mark.parametrize("change", [-1, 1])
def test_another_size_is_refused(change, server, store, trust, www):
    (path,) = www.glob("images/*.gz")
    content = path.read_bytes()
    path.write_bytes(content[:change] if change < 0 else content + b"x")
    with pytest.raises(HostError, match="another size than its index says"):
        fetch_image(server.url, "sci", store, trust=trust)


def broken_off(times: int) -> Fault:
    left = [times]

    def answer(request: Request, name: str) -> bool:
        left[0] -= 1
        if left[0] < 0:
            return False
        request.answer(whole(request.server, name), most=50_000)
        return True

    return answer


def test_a_connection_that_breaks_off_is_continued(server, store, trust):
    server.faults["tar.gz"] = broken_off(3)
    fetched = fetch_image(server.url, "sci", store, trust=trust)
    ranges = [asked for name, asked in server.asked if name.endswith("tar.gz")]
    starts = [asked.partition("-")[0] for asked in ranges]
    assert starts == ["", "bytes=50000", "bytes=100000", "bytes=150000"]
    assert fetched.downloaded < fetched.whole + 2000


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


def test_a_server_without_ranges(server, store, trust):
    first = [True]

    def answer(request: Request, name: str) -> bool:
        content = whole(request.server, name)
        request.answer(content, most=50_000 if first[0] else None, ranges=False)
        first[0] = False
        return True

    server.faults["tar.gz"] = answer
    assert fetch_image(server.url, "sci", store, trust=trust).way == "whole"


@pytest.mark.parametrize(
    "content_range",
    ["bytes 0-9/10", "bytes 50000-50001/434985", "items 1-2/3", "", "bytes */434985"],
)
def test_a_server_that_lies_about_ranges(content_range, server, store, trust):
    def answer(request: Request, name: str) -> bool:
        if not request.headers.get("Range"):
            request.answer(whole(request.server, name), most=50_000)
            return True
        request.send_response(206)
        request.send_header("Content-Range", content_range)
        request.send_header("Content-Length", "10")
        request.end_headers()
        request.wfile.write(bytes(10))
        return True

    server.faults["tar.gz"] = answer
    with pytest.raises(HostError, match="other bytes than asked"):
        fetch_image(server.url, "sci", store, trust=trust)


def silent(request: Request, name: str) -> bool:
    request.server.ended.wait(60)
    return True


def silent_in_the_middle(request: Request, name: str) -> bool:
    content = whole(request.server, name)
    request.send_response(200)
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    request.wfile.write(content[:1000])
    request.wfile.flush()
    request.server.ended.wait(60)
    return True


def endless_headers(request: Request, name: str) -> bool:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nX-A: ")
    for _ in range(10_000):
        try:
            request.wfile.write(b"x")
        except OSError:
            return True
        if request.server.ended.wait(0.05):
            return True
    return True


def drops(request: Request, name: str) -> bool:
    content = whole(request.server, name)
    request.send_response(200)
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    for byte in content:
        try:
            request.wfile.write(bytes([byte]))
        except OSError:
            return True
        if request.server.ended.wait(0.05):
            return True
    return True


@pytest.mark.parametrize(
    ("fault", "patience", "reason"),
    [
        (silent, HASTE, "does not answer in time"),
        (silent_in_the_middle, HASTE, "does not answer in time"),
        (endless_headers, HASTE, "does not answer in time"),
        (drops, SPEED, "is too slow"),
    ],
)
def test_a_server_that_takes_for_ever(fault, patience, reason, server, store, trust):
    server.faults["tar.gz"] = fault
    with pytest.raises(HostError, match=reason):
        fetch_image(server.url, "sci", store, trust=trust, patience=patience)


def redirected(*locations: str) -> Fault:
    left = list(locations)

    def answer(request: Request, name: str) -> bool:
        if not left:
            return False
        request.send_response(302)
        request.send_header("Location", left.pop(0))
        request.send_header("Content-Length", "0")
        request.end_headers()
        return True

    return answer


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/hostname",
        "ftp://127.0.0.1/x",
        "//user:word@127.0.0.1/",
        "gopher:x",
        "http://[",
        "http://[::1",
        "http://a..b/",
        f"http://{'a' * 64}.org/",
        "http://h:99999/",
    ],
)
def test_a_redirect_to_elsewhere_is_not_followed(location, server, store, trust):
    server.faults["tar.gz"] = redirected(location)
    with pytest.raises(HostError, match="does not follow"):
        fetch_image(server.url, "sci", store, trust=trust)


def test_a_redirect_to_another_name(server, store, trust, www):
    (path,) = www.glob("images/*.gz")
    path.rename(www / "elsewhere")
    server.faults[path.name] = redirected("/elsewhere")
    assert fetch_image(server.url, "sci", store, trust=trust).way == "whole"


def test_redirects_for_ever(server, store, trust):
    server.faults["tar.gz"] = redirected(*["/x.tar.gz"] * 100)
    with pytest.raises(HostError, match="redirected for ever"):
        fetch_image(server.url, "sci", store, trust=trust)


def test_a_redirect_from_https_leads_to_https_only():
    server = web.Server("https://127.0.0.1:1")
    with pytest.raises(HostError, match="does not follow"):
        server._redirected("https://127.0.0.1:1/x", "http://127.0.0.1:1/x")


@pytest.mark.parametrize(
    "url",
    [
        "file:///srv",
        "example.org",
        "http://",
        "http://a:b@c/",
        "http://a/?q",
        "http://a b/",
        "http://[/",
        "http://a..b/",
        f"http://{'a' * 64}.org/",
    ],
)
def test_addresses_that_are_refused(url, store):
    with pytest.raises(UsageError, match="not an address of images"):
        fetch_image(url, "sci", store)


def test_a_size_that_nobody_has(server, store, trust, www, tmp_path):
    """The publisher's key signs it: it is refused nevertheless."""
    index = decode_index((www / INDEX).read_bytes(), "www")
    (version,) = index.images["sci"]
    for size, reason in (((8 << 30) - 1, "of disk space"), (1 << 40, "cannot be read")):
        images = {"sci": (replace(version, packed_size=size, size=size),)}
        data = replace(index, images=images).encode()
        (www / INDEX).write_bytes(data)
        (www / SIGNATURE).write_bytes(keys.sign(tmp_path / "key.pem", data))
        fetch_free = fetch.free_space
        try:
            fetch.free_space = lambda _path: 1 << 30
            with pytest.raises(BoincvmError, match=reason):
                fetch_image(server.url, "sci", store, trust=trust)
        finally:
            fetch.free_space = fetch_free
    assert not any("tar.gz" in name for name in server.names())


def test_an_index_without_end(server, store, trust):
    def answer(request: Request, name: str) -> bool:
        request.send_response(200)
        request.send_header("Content-Length", str(1 << 40))
        request.end_headers()
        return True

    server.faults["index.json"] = answer
    with pytest.raises(HostError, match="too many bytes"):
        fetch_image(server.url, "sci", store, trust=trust)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"serial": -1},
        {"serial": True},
        {"images": []},
        {"images": {"../x": []}},
        {"images": {"sci": []}},
        {"images": {"sci": [1]}},
        {"images": {f"sci{number}": [] for number in range(101)}},
        {"more": 1},
    ],
)
def test_an_index_that_makes_no_sense(change, digest, www):
    document = json.loads((www / INDEX).read_bytes()) | change
    text = json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n"
    with pytest.raises(ImageDamagedError, match="cannot be read"):
        decode_index(text.encode(), "www")


@pytest.mark.parametrize("text", [b"", b"[" * 100_000, b"{}", b"\xff", b" " * (1 << 21)])
def test_an_index_that_is_none(text):
    with pytest.raises(ImageDamagedError, match="cannot be read"):
        decode_index(text, "www")


def test_a_patch_that_expands_for_ever(tmp_path):
    """It is expanded no further than what it claims, which is limited."""
    bomb = lzma.compress(bytes(16 << 20), lzma.FORMAT_RAW, filters=patch._FILTERS)
    for claimed in (16 << 20, 1000):
        data = patch._MAGIC + patch._RUN.pack(len(bomb), claimed) + bomb
        with pytest.raises(ImageDamagedError, match=r"claims too much|another size"):
            patch.apply_patch(BytesIO(data), tmp_path, "0" * 64, tmp_path, "the patch")


def test_a_patch_that_is_no_good_gives_way_to_blocks(server, store, trust, www, tmp_path, capsys):
    fetch_image(server.url, "sci", store, trust=trust)
    publisher = ImageStore(tmp_path / "publisher")
    newest = build(publisher, "sci", 1)
    publish_images(["sci"], www, tmp_path / "key.pem", publisher)
    server.faults[".patch"] = altered
    updated = update_image("sci", store)
    assert (updated.way, store.digest_of("sci")) == ("blocks", newest)
    assert list((store.root / "downloads").iterdir()) == []


def changed_blocks(change: str) -> Fault:
    """Answer with bytes of other blocks, or with altered ones."""

    def answer(request: Request, name: str) -> bool:
        content = whole(request.server, name)
        swapped = content[len(content) // 2 :] + content[: len(content) // 2]
        request.answer({"altered": bytes(len(content)), "swapped": swapped}[change])
        return True

    return answer


@pytest.mark.parametrize("change", ["altered", "swapped"])
def test_blocks_that_are_altered_or_swapped_give_way_to_the_whole(change, server, store, trust):
    build(store, "mine", 3)
    server.faults[".blocks"] = changed_blocks(change)
    fetched = fetch_image(server.url, "sci", store, trust=trust)
    assert (fetched.way, fetched.digest) == ("whole", store.digest_of("sci"))
    assert list((store.root / "downloads").iterdir()) == []


def test_blocks_from_a_server_without_ranges(server, store, trust):
    def answer(request: Request, name: str) -> bool:
        request.answer(whole(request.server, name), ranges=False)
        return True

    build(store, "mine", 3)
    server.faults[".blocks"] = answer
    assert fetch_image(server.url, "sci", store, trust=trust).way == "whole"


def refusing(status: int) -> Fault:
    def answer(request: Request, name: str) -> bool:
        request.send_response(status)
        request.send_header("Content-Length", "0")
        request.end_headers()
        return True

    return answer


def other_range(request: Request, name: str) -> bool:
    request.send_response(206)
    request.send_header("Content-Range", "bytes 0-9/10")
    request.send_header("Content-Length", "10")
    request.end_headers()
    request.wfile.write(bytes(10))
    return True


@pytest.mark.parametrize("part", [".map", ".blocks"])
@pytest.mark.parametrize(
    "fault",
    [refusing(416), refusing(403), refusing(500), other_range],
    ids=["416", "403", "500", "206"],
)
def test_a_server_that_refuses_blocks_gives_the_whole(part, fault, server, store, trust):
    build(store, "mine", 3)
    server.faults[part] = fault
    assert fetch_image(server.url, "sci", store, trust=trust).way == "whole"
    assert list((store.root / "downloads").iterdir()) == []


def test_a_server_that_refuses_the_patch(server, store, trust, www, tmp_path):
    fetch_image(server.url, "sci", store, trust=trust)
    publisher = ImageStore(tmp_path / "publisher")
    build(publisher, "sci", 1)
    publish_images(["sci"], www, tmp_path / "key.pem", publisher)
    server.faults[".patch"] = refusing(403)
    assert update_image("sci", store).way == "blocks"


def test_many_ranges_cost_more_than_the_whole(server, store, trust, monkeypatch):
    build(store, "mine", 3)
    monkeypatch.setattr(fetch, "RANGE_COST", 1 << 20)
    assert fetch_image(server.url, "sci", store, trust=trust).way == "whole"
    assert not any(name.endswith(".blocks") for name in server.names())
    assert list((store.root / "downloads").iterdir()) == []


def test_an_altered_map_gives_way_to_the_whole(server, store, trust):
    build(store, "mine", 3)
    server.faults[".map"] = altered
    assert fetch_image(server.url, "sci", store, trust=trust).way == "whole"


def test_blocks_that_have_arrived_are_not_downloaded_again(server, store, trust, monkeypatch):
    build(store, "mine", 3)
    asked = [0]

    def breaks_off(request: Request, name: str) -> bool:
        asked[0] += 1
        if asked[0] > 2:
            request.answer(whole(request.server, name), most=0)
        return asked[0] > 2

    monkeypatch.setattr(blocks, "_LONGEST_GAP", -1)
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


def test_a_map_that_makes_no_sense(digest, www):
    (path,) = www.glob("images/*.map")
    data = path.read_bytes()
    blocks.read_map(data, digest, "the map")
    for bad in (b"", data[:20], data[:-1], data + b"x", data[:-2] + b"\0\0"):
        with pytest.raises(ImageDamagedError, match="the map is damaged"):
            blocks.read_map(bad, digest, "the map")


def test_a_manifest_that_is_not_canonical(tmp_path, monkeypatch):
    """It would be stored under another digest than the one that was signed."""
    store = ImageStore(tmp_path / "publisher")
    build(store, "sci", 0)
    made, map_file = BytesIO(), BytesIO()
    with store.open("sci") as image, monkeypatch.context() as patched:
        text = image.manifest.encode().replace(b":", b": ")
        patched.setattr(Manifest, "encode", lambda _self: text)
        patch.write_patch(image.directory, image.directory, image.manifest, made)
        blocks.write_blocks(image.directory, image.manifest, map_file, BytesIO())
    signed = hashlib.sha256(text).hexdigest()
    with store.open("sci") as image:
        made.seek(0)
        with pytest.raises(ImageDamagedError, match="manifest is not canonical"):
            patch.apply_patch(made, image.directory, signed, tmp_path, "the patch")
        with pytest.raises(ImageDamagedError, match="the map is damaged"):
            blocks.read_map(map_file.getvalue(), signed, "the map")


def test_an_image_of_another_digest_gets_no_name(digest, www, store, tmp_path):
    publisher = ImageStore(tmp_path / "publisher")
    index = decode_index((www / INDEX).read_bytes(), "www")
    version = replace(index.images["sci"][0], digest="0" * 64)
    with (
        publisher.open("sci") as image,
        pytest.raises(ImageDamagedError, match="makes another image"),
    ):
        fetch._publish(store, "sci", image.directory, version, image.manifest, "the patch")
    assert store.names() == []


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


def test_a_download_stays_if_its_use_is_interrupted(server, store, trust, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(fetch, "unpack_image", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch_image(server.url, "sci", store, trust=trust)
    (part,) = (store.root / "downloads").iterdir()
    # What is here already needs no more space.
    index = decode_index((server.directory / INDEX).read_bytes(), "www")
    needed = index.images["sci"][0].size + fetch._MARGIN
    monkeypatch.setattr(fetch, "free_space", lambda _path: needed)
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
        patched.setattr(fetch, "apply_patch", interrupted)
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

    class Waiting(fetch.Progress):
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
