"""Images that are downloaded by BitTorrent from peers on loopback, who may be hostile or none."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import libtorrent as lt
import pytest

from boincvm.cli.main import main
from boincvm.errors import HostDiskFullError, HostError, ImageDamagedError
from boincvm.exit_codes import ExitCode
from boincvm.image.delivery import swarm
from boincvm.image.delivery.fetch import fetch_image
from boincvm.image.delivery.index import INDEX, SIGNATURE, Torrent, Version, decode_index
from boincvm.image.delivery.publish import publish_images
from boincvm.image.delivery.server import Server
from boincvm.image.delivery.swarm import Sharing
from boincvm.image.delivery.torrent_file import (
    HINT,
    Offer,
    check_offer,
    read_torrent,
    write_torrent,
)
from boincvm.image.progress import Progress
from boincvm.image.store import ImageStore
from boincvm.sizes import format_size
from support.image_server import ImageServer, Request, whole
from support.observed import LIMIT
from support.small_disk import needs_namespaces, small_disk
from support.swarm import HERE, PIECE, Tracker, sharing, tracking, with_pieces
from support.versions import build, contents, noise

pytestmark = pytest.mark.usefixtures("own_home")


@pytest.fixture
def tracker() -> Iterator[Tracker]:
    with tracking() as tracker:
        yield tracker


@pytest.fixture
def version(publisher, www, key, server, tracker) -> Version:
    """Publish an image with torrents; return what its index says."""
    build(publisher, "sci", 0)
    offer = Offer(server.url, (tracker.url,))
    index, _ = publish_images(["sci"], www, key, publisher, offer=offer)
    return index.images["sci"][-1]


def files_of(store: ImageStore) -> dict[str, bytes]:
    with store.open("sci") as image:
        return {
            file.name: (image.directory / file.name).read_bytes() for file in image.manifest.files
        }


@pytest.fixture
def packed(version: Version, www: Path) -> bytes:
    return (www / version.packed_name).read_bytes()


@pytest.fixture
def torrent(version: Version, www: Path) -> Path:
    return www / f"{version.packed_name}.torrent"


def count(packed: bytes) -> int:
    return -(-len(packed) // PIECE)


def ranges(server: ImageServer) -> list[str]:
    """Return which ranges of the packed image were asked of the web server; "" is the whole."""
    return [asked for name, asked in server.asked if name.endswith(".tar.gz")]


def until(
    monkeypatch: pytest.MonkeyPatch, condition: Callable[[lt.session, lt.torrent_handle], bool]
) -> None:
    """Let downloads from peers end when `condition` holds."""

    def wait(session: lt.session, handle: lt.torrent_handle, *_: object) -> None:
        limit = time.monotonic() + LIMIT
        while not condition(session, handle):
            assert time.monotonic() < limit
            session.wait_for_alert(100)

    monkeypatch.setattr(swarm, "_wait", wait)


def test_three_peers(server, store, trust, tracker, packed, torrent, tmp_path):
    """Each of two has what the other lacks; the third gets all of it from them."""
    halves = [with_pieces(packed, range(first, count(packed), 2)) for first in (0, 1)]
    with (
        sharing(tracker, torrent, halves[0], tmp_path / "a") as a,
        sharing(tracker, torrent, halves[1], tmp_path / "b") as b,
    ):
        fetched = fetch_image(server.url, "sci", store, trust=trust, sharing=HERE)
        assert a.uploaded + b.uploaded >= len(packed)
    assert fetched.way == "whole"
    assert fetched.from_peers >= len(packed)
    assert fetched.downloaded == fetched.from_peers + server.sent
    assert f"({format_size(fetched.from_peers)} from peers)" in fetched.text
    assert ranges(server) == []
    assert files_of(store) == contents(0)
    assert list((store.root / "downloads").iterdir()) == []


def test_no_peers(server, store, trust, version):
    """After a while the web server has all."""
    patience = replace(HERE, start=0.1)
    fetched = fetch_image(server.url, "sci", store, trust=trust, sharing=patience)
    assert (fetched.way, fetched.from_peers) == ("whole", 0)
    assert ranges(server) == [""]
    assert files_of(store) == contents(0)


def test_a_tracker_that_is_away(server, store, trust, publisher, www, key):
    build(publisher, "sci", 0)
    offer = Offer(server.url, ("http://127.0.0.1:1/announce",))
    publish_images(["sci"], www, key, publisher, offer=offer)
    patience = replace(HERE, start=0.1)
    assert fetch_image(server.url, "sci", store, trust=trust, sharing=patience).from_peers == 0
    assert files_of(store) == contents(0)


def test_peers_that_have_a_part(
    server, store, trust, tracker, packed, torrent, tmp_path, monkeypatch
):
    """The web server has the rest, which alone is asked of it."""
    some = range(0, count(packed), 2)

    def has_some(session: lt.session, handle: lt.torrent_handle) -> bool:
        return handle.status().num_pieces == len(some)

    until(monkeypatch, has_some)
    with sharing(tracker, torrent, with_pieces(packed, some), tmp_path / "a"):
        fetched = fetch_image(server.url, "sci", store, trust=trust, sharing=HERE)
    assert fetched.from_peers >= PIECE * (len(some) - 1)
    others = range(1, count(packed), 2)
    assert ranges(server) == [f"bytes={n * PIECE}-{(n + 1) * PIECE - 1}" for n in others]
    assert files_of(store) == contents(0)


def test_peers_that_stop(server, store, trust, tracker, packed, torrent, tmp_path):
    """Nobody waits for them for long."""
    part = with_pieces(packed, range(2))
    patience = replace(HERE, window=0.1)
    with sharing(tracker, torrent, part, tmp_path / "a"):
        fetched = fetch_image(server.url, "sci", store, trust=trust, sharing=patience)
    assert fetched.from_peers > 0
    assert files_of(store) == contents(0)


def test_a_peer_that_sends_wrong_data(
    server, store, trust, tracker, packed, torrent, tmp_path, monkeypatch
):
    """Nothing of it is taken."""

    def was_wrong(session: lt.session, handle: lt.torrent_handle) -> bool:
        return any(isinstance(one, lt.hash_failed_alert) for one in session.pop_alerts())

    until(monkeypatch, was_wrong)
    wrong = bytes(byte ^ 1 for byte in packed)
    with sharing(tracker, torrent, wrong, tmp_path / "a", is_hostile=True) as peer:
        fetched = fetch_image(server.url, "sci", store, trust=trust, sharing=HERE)
        assert peer.uploaded > 0
    assert ranges(server) == [""]
    assert fetched.way == "whole"
    assert files_of(store) == contents(0)


def breaks_off(request: Request, name: str) -> bool:
    if name.endswith(".torrent"):
        return False
    request.answer(whole(request.server, name), most=0)
    return True


def without_ranges(request: Request, name: str) -> bool:
    if name.endswith(".torrent"):
        return False
    request.answer(whole(request.server, name), ranges=False)
    return True


def test_what_peers_have_sent_is_kept(
    server, store, trust, tracker, packed, torrent, tmp_path, monkeypatch
):
    """If the web server breaks off, the next attempt goes on, also without peers."""
    some = range(0, count(packed), 2)

    def has_some(session: lt.session, handle: lt.torrent_handle) -> bool:
        return handle.status().num_pieces >= len(some)

    server.faults[".tar.gz"] = breaks_off
    until(monkeypatch, has_some)
    part = with_pieces(packed, some)
    with (
        sharing(tracker, torrent, part, tmp_path / "a"),
        pytest.raises(HostError, match="broke off"),
    ):
        fetch_image(server.url, "sci", store, trust=trust, sharing=HERE)
    server.faults.clear()
    server.asked.clear()
    fetched = fetch_image(server.url, "sci", store, trust=trust, sharing=HERE)
    assert fetched.from_peers == 0
    assert ranges(server)
    assert "" not in ranges(server)
    assert files_of(store) == contents(0)
    assert list((store.root / "downloads").iterdir()) == []


@pytest.mark.parametrize("fault", ["altered", "missing", "without ranges"])
def test_a_torrent_that_is_no_good(
    fault, server, store, trust, tracker, packed, torrent, tmp_path, monkeypatch
):
    """All comes from the web server."""

    until(monkeypatch, lambda session, handle: handle.status().num_pieces > 0)
    part = with_pieces(packed, range(1))
    with sharing(tracker, torrent, part, tmp_path / "a"):
        if fault == "altered":
            torrent.write_bytes(torrent.read_bytes().replace(b"announce", b"announcf"))
        elif fault == "missing":
            torrent.unlink()
        else:
            server.faults[".gz"] = lambda request, name: (
                name.endswith(".gz") and without_ranges(request, name)
            )
        fetched = fetch_image(server.url, "sci", store, trust=trust, sharing=HERE)
    assert fetched.way == "whole"
    assert ranges(server)[-1] == ""
    assert files_of(store) == contents(0)
    assert list((store.root / "downloads").iterdir()) == []


@pytest.mark.parametrize("package", [None, SimpleNamespace(__version__="2.0.8.0")])
def test_without_the_package(package, server, store, trust, version, monkeypatch):
    """Images are fetched all the same; publishing torrents needs it."""
    notes = []
    monkeypatch.setitem(sys.modules, "libtorrent", package)
    monkeypatch.setattr(Progress, "note", lambda _self, text: notes.append(text))
    fetched = fetch_image(server.url, "sci", store, trust=trust, sharing=HERE)
    assert (fetched.way, fetched.from_peers) == ("whole", 0)
    assert [HINT in note for note in notes] == [True]
    with pytest.raises(HostError, match="torrents need the Python package libtorrent") as caught:
        check_offer("http://127.0.0.1", ("http://127.0.0.1/announce",))
    assert caught.value.hint == HINT


@pytest.mark.parametrize("why", ["asked", "proxy"])
def test_no_peer_is_looked_for(why, server, store, trust, version, monkeypatch):
    """Neither if that is asked for nor where a proxy leads to the web server."""
    monkeypatch.setattr("boincvm.image.delivery.shared_download.download_from_peers", None)
    if why == "proxy":
        monkeypatch.setattr(Server, "is_behind_proxy", lambda _self: True)
    asked = HERE if why == "proxy" else None
    fetched = fetch_image(server.url, "sci", store, trust=trust, sharing=asked)
    assert (fetched.way, fetched.from_peers) == ("whole", 0)
    assert not any(name.endswith(".torrent") for name in server.names())


def test_a_disk_that_is_full(server, store, trust, tracker, packed, torrent, tmp_path, monkeypatch):
    """What has arrived goes, so that others have the space."""

    def full(*_: object) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    until(monkeypatch, full)
    with (
        sharing(tracker, torrent, packed, tmp_path / "a"),
        pytest.raises(HostDiskFullError),
    ):
        fetch_image(server.url, "sci", store, trust=trust, sharing=HERE)
    assert store.names() == []
    assert list((store.root / "downloads").iterdir()) == []


@needs_namespaces
def test_a_real_disk_that_is_full(tracker, server, tmp_path):
    content, path, disk = noise("much", 2 << 20), tmp_path / "much", tmp_path / "disk"
    path.write_bytes(content)
    disk.mkdir()
    torrent = tmp_path / "much.torrent"
    write_torrent(path, "much", torrent, Offer(server.url, (tracker.url,)))
    command = [sys.executable, "-m", "support.shared_on_small_disk"]
    with sharing(tracker, torrent, content, tmp_path / "a"):
        done = subprocess.run(
            [*small_disk("1m", disk), *command, torrent, str(len(content)), disk / "file"],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=True,
        )
    assert done.stdout == f"{errno.ENOSPC}\n"


def test_nothing_is_told_to_strangers():
    """Unless the user wants it, peers are found through trackers only."""
    names = ("enable_dht", "enable_lsd", "enable_upnp", "enable_natpmp")
    for is_open in (False, True):
        settings = swarm._settings(Sharing(is_open))
        assert [settings[name] for name in names] == [is_open] * 4
        assert settings["webtorrent_stun_server"] == ""
        assert 0 < settings["upload_rate_limit"] <= 1 << 20
        assert 0 < settings["connections_limit"] <= 50


def test_equal_images_have_equal_torrents(version, www, torrent, server, tracker, tmp_path):
    again = write_torrent(
        www / version.packed_name,
        version.packed_name,
        tmp_path / "again",
        Offer(server.url, (tracker.url,)),
    )
    assert (tmp_path / "again").read_bytes() == torrent.read_bytes()
    assert again == version.torrent
    found = lt.load_torrent_buffer(torrent.read_bytes())
    assert found.url_seeds == [f"{server.url}/{version.packed_name}"]
    assert found.trackers == [tracker.url]
    assert str(found.info_hashes.v2) == version.torrent.info_hash


def test_torrents_follow_their_files(publisher, www, key, version, tracker, server):
    """They are made later for an image that was published without; small patches have none."""
    index, (same,) = publish_images(["sci"], www, key, publisher)
    assert (index.serial, same.is_new) == (1, False)
    build(publisher, "other", 9)
    publish_images(["other"], www, key, publisher)
    offer = Offer(server.url, (tracker.url,))
    index, (same,) = publish_images(["other"], www, key, publisher, offer=offer)
    assert (index.serial, same.is_new) == (3, False)
    for number in range(1, 5):
        build(publisher, "sci", number)
        index, _ = publish_images(["sci"], www, key, publisher, offer=offer)
    assert [one.torrent is not None for one in index.images["sci"]] == [True] * 3
    assert [one.torrent for one in index.images["sci"][-1].patches] == [None] * 2
    # The former index names one more.
    assert len(list(www.glob("images/*.torrent"))) == len(list(www.glob("images/*.gz"))) == 5
    assert decode_index((www / INDEX).read_bytes(), "www") == index


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sha256": "0" * 64}, "is not what its index says"),
        ({"info_hash": "0" * 64}, "of another swarm"),
    ],
)
def test_a_torrent_of_another_file(change, reason, version, torrent):
    content = torrent.read_bytes()
    wrong = replace(version.torrent, **change)
    with pytest.raises(ImageDamagedError, match=reason):
        read_torrent(content, wrong, version.packed_size, "here")
    with pytest.raises(ImageDamagedError, match="of something else"):
        read_torrent(content, version.torrent, 1, "here")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"d4:infod4:name1:xee",
        b"l" * 100_000,
        lt.bencode({b"announce": b"file:///etc/hostname"}),
    ],
)
def test_a_torrent_that_makes_no_sense(content):
    wrong = Torrent(len(content), hashlib.sha256(content).hexdigest(), "0" * 64)
    with pytest.raises(ImageDamagedError, match="here"):
        read_torrent(content, wrong, 1, "here")


def test_a_tracker_that_nobody_asks(torrent, version):
    table = lt.bdecode(torrent.read_bytes())
    many = [[b"http://a/announce?%d" % number] for number in range(9)]
    for change in ({b"announce": b"wss://a/"}, {b"announce-list": many}):
        content = lt.bencode({**table, **change})
        signed = replace(
            version.torrent, size=len(content), sha256=hashlib.sha256(content).hexdigest()
        )
        with pytest.raises(ImageDamagedError, match="trackers that nobody asks"):
            read_torrent(content, signed, version.packed_size, "here")


def test_the_commands(server, www, tracker, capsys):
    build(ImageStore(), "sci", 0)
    assert main(["image", "key", "--json"]) == 0
    public = json.loads(capsys.readouterr().out)["key"]
    publish = ["image", "publish", "sci", str(www)]
    for wrong in (["--tracker", tracker.url], ["--torrent", server.url]):
        assert main([*publish, *wrong]) == ExitCode.USAGE
    assert main([*publish, "--torrent", server.url, "--tracker", "udp:x"]) == ExitCode.USAGE
    assert main([*publish, "--torrent", server.url, "--tracker", tracker.url, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["images"]
    assert (www / "images" / f"{found['digest']}.tar.xz.torrent").stat().st_size == (
        found["torrent"]["size"]
    )
    assert main(["image", "rm", "sci"]) == 0
    fetch = ["image", "fetch", server.url, "sci", "--key", public, "--peers", "no", "--json"]
    capsys.readouterr()
    assert main(fetch) == 0
    assert json.loads(capsys.readouterr().out)["from_peers"] == 0
    assert server.names() == [SIGNATURE, INDEX, f"images/{found['digest']}.tar.xz"]
