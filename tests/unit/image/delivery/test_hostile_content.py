"""Indexes, patches, blocks and images that are altered, or make no sense."""

import hashlib
import json
import lzma
from dataclasses import replace
from io import BytesIO

import pytest

from boincvm.errors import (
    BoincvmError,
    ImageDamagedError,
)
from boincvm.image.delivery import blocks, download, keys, patch, ways
from boincvm.image.delivery.fetch import fetch_image, update_image
from boincvm.image.delivery.index import INDEX, SIGNATURE, decode_index
from boincvm.image.delivery.publish import publish_images
from boincvm.image.manifest import Manifest
from boincvm.image.store import ImageStore
from support.image_server import Fault, Request, altered, truncated, whole
from support.versions import build

pytestmark = pytest.mark.usefixtures("own_home", "digest")


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


def test_a_size_that_nobody_has(server, store, trust, www, tmp_path):
    """The publisher's key signs it: it is refused nevertheless."""
    index = decode_index((www / INDEX).read_bytes(), "www")
    (version,) = index.images["sci"]
    for size, reason in (((8 << 30) - 1, "of disk space"), (1 << 40, "cannot be read")):
        images = {"sci": (replace(version, packed_size=size, size=size),)}
        data = replace(index, images=images).encode()
        (www / INDEX).write_bytes(data)
        (www / SIGNATURE).write_bytes(keys.sign(tmp_path / "key.pem", data))
        free_space = download.free_space
        try:
            download.free_space = lambda _path: 1 << 30
            with pytest.raises(BoincvmError, match=reason):
                fetch_image(server.url, "sci", store, trust=trust)
        finally:
            download.free_space = free_space
    assert not any("tar.gz" in name for name in server.names())


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


@pytest.mark.parametrize("fault", [altered, swapped, truncated])
def test_a_patch_that_is_no_good_gives_way_to_blocks(fault, server, store, trust, www, tmp_path):
    fetch_image(server.url, "sci", store, trust=trust)
    publisher = ImageStore(tmp_path / "publisher")
    newest = build(publisher, "sci", 1)
    publish_images(["sci"], www, tmp_path / "key.pem", publisher)
    server.faults[".patch"] = fault
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


@pytest.mark.parametrize("part", [".map", ".blocks"])
def test_blocks_that_are_truncated_give_way_to_the_whole(part, server, store, trust):
    build(store, "mine", 3)
    server.faults[part] = truncated
    assert fetch_image(server.url, "sci", store, trust=trust).way == "whole"
    assert list((store.root / "downloads").iterdir()) == []


def test_many_ranges_cost_more_than_the_whole(server, store, trust, monkeypatch):
    build(store, "mine", 3)
    monkeypatch.setattr(ways, "RANGE_COST", 1 << 20)
    assert fetch_image(server.url, "sci", store, trust=trust).way == "whole"
    assert not any(name.endswith(".blocks") for name in server.names())
    assert list((store.root / "downloads").iterdir()) == []


def test_an_altered_map_gives_way_to_the_whole(server, store, trust):
    build(store, "mine", 3)
    server.faults[".map"] = altered
    assert fetch_image(server.url, "sci", store, trust=trust).way == "whole"


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
        ways._publish(store, "sci", image.directory, version, image.manifest, "the patch")
    assert store.names() == []
