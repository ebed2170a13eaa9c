"""Images that are published in a directory, fetched from a web server, and updated."""

import base64
import errno
import hashlib
import io
import json
import os
import ssl
import string
import subprocess
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from boincvm.cli.main import main
from boincvm.errors import (
    HostDiskFullError,
    HostError,
    ImageDamagedError,
    ImageMissingError,
    UsageError,
)
from boincvm.image.delivery import keys
from boincvm.image.delivery.fetch import fetch_image, fetched_names, update_image
from boincvm.image.delivery.index import MOST_IMAGES, decode_index
from boincvm.image.delivery.patch import apply_patch, write_patch
from boincvm.image.delivery.proxy import proxy_for
from boincvm.image.delivery.publish import publish_images
from boincvm.image.delivery.trust import Trust
from boincvm.image.pack_format import Compression
from boincvm.image.store import ImageStore
from support.certificates import Authority
from support.image_server import ImageServer, Request
from support.packed_images import publish_odd
from support.versions import build, contents

pytestmark = pytest.mark.usefixtures("own_home")


def publish(publisher: ImageStore, www: Path, key: Path, version: int) -> str:
    digest = build(publisher, "sci", version)
    publish_images(["sci"], www, key, publisher)
    return digest


def files_of(store: ImageStore, name: str = "sci") -> dict[str, bytes]:
    with store.open(name) as image:
        return {
            file.name: (image.directory / file.name).read_bytes() for file in image.manifest.files
        }


def test_an_image_is_fetched_and_updated(server, publisher, www, key, trust, store):
    first = publish(publisher, www, key, 0)
    fetched = fetch_image(server.url, "sci", store, trust=trust)
    assert (fetched.digest, fetched.way) == (first, "whole")
    assert fetched.downloaded >= fetched.whole == next(www.glob("images/*.gz")).stat().st_size
    assert files_of(store) == contents(0)

    # The key is remembered, and an image that is here is not downloaded again.
    assert update_image("sci", store).way == "present"
    second = publish(publisher, www, key, 1)
    updated = update_image("sci", store)
    assert (updated.digest, updated.way) == (second, "patch")
    assert files_of(store) == contents(1)
    assert updated.downloaded < updated.whole / 5
    assert [path.name for path in (store.root / "downloads").iterdir()] == []


def test_a_patch_leads_from_each_version_that_is_kept(server, publisher, www, key, trust, store):
    publish(publisher, www, key, 0)
    fetch_image(server.url, "sci", store, trust=trust)
    for version in (1, 2):
        publish(publisher, www, key, version)
    assert update_image("sci", store).way == "patch"
    assert files_of(store) == contents(2)


@pytest.mark.parametrize("way", ["patch", "blocks"])
def test_the_version_before_goes(way, server, publisher, www, key, trust, store):
    """It was in use as long as the new one was made from it."""
    publish(publisher, www, key, 0)
    fetch_image(server.url, "sci", store, trust=trust)
    newest = publish(publisher, www, key, 1)
    if way == "blocks":
        for path in www.glob("patches/*"):
            path.unlink()
    assert update_image("sci", store).way == way
    assert [path.name for path in (store.root / "objects").iterdir()] == [newest]


def test_an_image_of_the_users_own_is_not_updated(server, publisher, www, key, trust, capsys):
    store = ImageStore()
    publish(publisher, www, key, 0)
    fetch_image(server.url, "sci", store, trust=trust)
    newest = publish(publisher, www, key, 1)
    mine = build(store, "sci", 3)
    skipped = update_image("sci", store, skip_others=True)
    assert (skipped.way, skipped.digest, store.digest_of("sci")) == ("skipped", mine, mine)
    assert "to replace it: boincvm image update sci" in skipped.text
    # The command does that if no image is named.
    assert main(["image", "update"]) == 0
    assert skipped.text in capsys.readouterr().out
    assert main(["image", "update", "sci"]) == 0
    assert store.digest_of("sci") == newest
    publish(publisher, www, key, 2)
    assert update_image("sci", store, skip_others=True).way == "patch"


def test_an_image_of_a_digest_is_not_updated(server, publisher, www, key, trust, store):
    first = publish(publisher, www, key, 0)
    publish(publisher, www, key, 1)
    fetch_image(server.url, "sci", store, trust=trust)
    fetch_image(server.url, "sci", store, trust=Trust(digest=first))
    assert fetched_names(store) == []
    with pytest.raises(UsageError, match="was not fetched from anywhere"):
        update_image("sci", store)


def test_what_an_earlier_boincvm_has_remembered(server, publisher, www, key, trust, store):
    publish(publisher, www, key, 0)
    fetch_image(server.url, "sci", store, trust=trust)
    path = store.root / "sources.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"images": {"sci": server.url}}))
    newest = publish(publisher, www, key, 1)
    assert update_image("sci", store, skip_others=True).digest == newest
    origin = {"url": server.url, "digest": newest}
    assert json.loads(path.read_text())["images"] == {"sci": origin}


def test_blocks_of_any_local_image_are_used(server, publisher, www, key, trust, store):
    publish(publisher, www, key, 3)
    build(store, "mine", 0)
    fetched = fetch_image(server.url, "sci", store, trust=trust)
    assert fetched.way == "blocks"
    assert fetched.downloaded < fetched.whole / 5
    assert files_of(store) == contents(3)
    assert [path.name for path in (store.root / "downloads").iterdir()] == []


def test_a_version_in_xz_follows_one_in_gzip(server, publisher, www, key, trust, store):
    publish(publisher, www, key, 0)
    newest = build(publisher, "sci", 1)
    _, (published,) = publish_images(["sci"], www, key, publisher, compression=Compression.XZ)
    assert [patch.base for patch in published.version.patches]
    assert {path.suffix for path in www.glob("images/*.tar.*")} == {".gz", ".xz"}
    fetched = fetch_image(server.url, "sci", store, trust=trust)
    assert (fetched.way, fetched.digest) == ("whole", newest)
    assert fetched.whole == (www / f"images/{newest}.tar.xz").stat().st_size
    assert files_of(store) == contents(1)


def test_versions_that_are_not_kept_are_removed(publisher, www, key):
    digests = [publish(publisher, www, key, version) for version in range(5)]
    # The former index named the second.
    assert sorted(path.name for path in www.glob("images/*.gz")) == sorted(
        f"{digest}.tar.gz" for digest in digests[1:]
    )
    assert {path.stem for path in www.glob("images/*.blocks")} == set(digests[3:])
    assert {path.name[65:-6] for path in www.glob("patches/*")} == set(digests[3:])


@pytest.mark.parametrize(
    ("oddity", "why"), [("spaced", "not canonical"), ("accent", "other characters than ASCII")]
)
def test_an_image_that_nobody_could_fetch_is_not_published(oddity, why, publisher, www, key):
    publish(publisher, www, key, 0)
    publish_odd(publisher, "odd", oddity)
    before = {path: path.stat().st_mtime_ns for path in www.rglob("*")}
    with pytest.raises(UsageError, match=f"image odd would be refused .* {why}") as caught:
        publish_images(["sci", "odd"], www, key, publisher)
    assert "boincvm image " in caught.value.hint
    assert {path: path.stat().st_mtime_ns for path in www.rglob("*")} == before


def test_an_unchanged_image_is_not_published_again(publisher, www, key):
    publish(publisher, www, key, 0)
    before = (www / "index.json").read_bytes()
    _, published = publish_images(["sci"], www, key, publisher)
    assert [one.is_new for one in published] == [False]
    assert (www / "index.json").read_bytes() == before


@pytest.mark.parametrize("renamed", [".index.json.next", "index.json.sig", "index.json"])
def test_what_was_published_halfway_is_finished(
    renamed, server, publisher, www, key, trust, store, monkeypatch
):
    publish(publisher, www, key, 0)
    rename = os.replace

    def until_full(source: Path, target: Path) -> None:
        if Path(target) == www / renamed:
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", until_full)
        with pytest.raises(HostDiskFullError):
            publish(publisher, www, key, 1)
    index, published = publish_images(["sci"], www, key, publisher)
    assert index.serial == 2
    assert [one.is_new for one in published] == [renamed != "index.json"]
    fetched = fetch_image(server.url, "sci", store, trust=trust)
    assert (fetched.digest, files_of(store)) == (published[0].version.digest, contents(1))


def test_the_first_index_that_was_published_halfway_is_finished(publisher, www, key):
    publish(publisher, www, key, 0)
    (www / "index.json").rename(www / ".index.json.next")
    index, published = publish_images(["sci"], www, key, publisher)
    assert (index.serial, [one.is_new for one in published]) == (1, [False])
    assert decode_index((www / "index.json").read_bytes(), "www") == index


def test_an_index_that_is_just_being_replaced(
    server, publisher, www, key, trust, store, monkeypatch
):
    """Who finds the signature of the next one waits a little."""
    publish(publisher, www, key, 0)
    old = (www / "index.json").read_bytes()
    newest = publish(publisher, www, key, 1)
    new = (www / "index.json").read_bytes()
    (www / "index.json").write_bytes(old)
    waited = []

    class UntilReplaced:
        def wait(self, seconds: float) -> None:
            waited.append(seconds)
            (www / "index.json").write_bytes(new)

    monkeypatch.setattr("boincvm.image.delivery.trust.Event", UntilReplaced)
    monkeypatch.setattr("boincvm.image.delivery.trust._PAUSE", 7)
    for _ in range(2):
        assert fetch_image(server.url, "sci", store, trust=trust).digest == newest
    assert waited == [7]


def test_more_images_than_anybody_reads_are_not_published(publisher, www, key):
    publish(publisher, www, key, 0)
    index = decode_index((www / "index.json").read_bytes(), "www")
    images = {f"sci{number}": index.images["sci"] for number in range(MOST_IMAGES)}
    data = replace(index, images=images).encode()
    (www / "index.json").write_bytes(data)
    (www / "index.json.sig").write_bytes(keys.sign(key, data))
    before = {path: path.stat().st_mtime_ns for path in www.rglob("*")}
    build(publisher, "sci", 1)
    with pytest.raises(UsageError, match="too many images"):
        publish_images(["sci"], www, key, publisher)
    assert {path: path.stat().st_mtime_ns for path in www.rglob("*")} == before


def test_another_key_does_not_go_on_with_a_directory(publisher, www, key, tmp_path):
    publish(publisher, www, key, 0)
    keys.make_key(tmp_path / "other.pem")
    with pytest.raises(UsageError, match="was not signed with the key"):
        publish_images(["sci"], www, tmp_path / "other.pem", publisher)


def test_the_key_of_an_address_is_taken_only_where_that_is_asked_for(
    server, publisher, www, key, store
):
    publish(publisher, www, key, 0)
    with pytest.raises(UsageError, match="not trusted yet"):
        fetch_image(server.url, "sci", store)
    fetch_image(server.url, "sci", store, trust=Trust(first_use=True))
    known = json.loads((store.root / "sources.json").read_text())["sources"][server.url]
    assert known == {"key": keys.public_key(key), "serial": 1}


def test_another_key_than_the_known_one_is_refused(
    server, publisher, www, key, trust, store, tmp_path
):
    publish(publisher, www, key, 0)
    fetch_image(server.url, "sci", store, trust=trust)
    other = keys.make_key(tmp_path / "other.pem")
    with pytest.raises(UsageError, match="with another key") as caught:
        fetch_image(server.url, "sci", store, trust=Trust(other))
    assert caught.value.hint.endswith(f"remove the address from {store.root / 'sources.json'}")
    for path in (www / "index.json", www / "index.json.sig", www / "key.txt"):
        path.unlink()
    publish(publisher, www, tmp_path / "other.pem", 1)
    for trust_now in (Trust(), Trust(first_use=True)):
        with pytest.raises(ImageDamagedError, match="is not signed by"):
            fetch_image(server.url, "sci", store, trust=trust_now)


@pytest.mark.parametrize("remembered", ["now", "by an earlier boincvm"])
def test_a_key_counts_by_its_bytes(server, publisher, www, key, store, remembered):
    publish(publisher, www, key, 0)
    true = keys.public_key(key)
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
    other = f"{true[:-2]}{alphabet[alphabet.index(true[-2]) + 1]}="
    fetch_image(server.url, "sci", store, trust=Trust(keys.parse_public(other)))
    path = store.root / "sources.json"
    assert json.loads(path.read_text())["sources"][server.url]["key"] == true
    if remembered != "now":
        path.write_text(path.read_text().replace(true, other))
    assert update_image("sci", store).way == "present"
    assert fetch_image(server.url, "sci", store, trust=Trust(true)).way == "present"
    assert json.loads(path.read_text())["sources"][server.url]["key"] == true


def test_an_altered_index_is_refused(server, publisher, www, key, trust, store):
    publish(publisher, www, key, 0)
    index = www / "index.json"
    index.write_bytes(index.read_bytes().replace(b'"serial":1', b'"serial":7'))
    with pytest.raises(ImageDamagedError, match="is not signed by"):
        fetch_image(server.url, "sci", store, trust=trust)
    assert store.names() == []


def test_an_unsigned_image_needs_its_digest(server, publisher, www, key, trust, store):
    digest = publish(publisher, www, key, 0)
    (www / "index.json.sig").unlink()
    with pytest.raises(ImageMissingError, match=r"index\.json\.sig"):
        fetch_image(server.url, "sci", store, trust=trust)
    with pytest.raises(ImageMissingError, match="no such version"):
        fetch_image(server.url, "sci", store, trust=Trust(digest="0" * 64))
    fetched = fetch_image(server.url, "sci", store, trust=Trust(digest=digest))
    assert (fetched.digest, store.digest_of("sci")) == (digest, digest)


def test_an_old_index_is_refused(server, publisher, www, key, trust, store):
    publish(publisher, www, key, 0)
    old = {name: (www / name).read_bytes() for name in ("index.json", "index.json.sig")}
    newest = publish(publisher, www, key, 1)
    fetch_image(server.url, "sci", store, trust=trust)
    for name, content in old.items():
        (www / name).write_bytes(content)
    with pytest.raises(ImageDamagedError, match="an old one: number 1, and number 2"):
        update_image("sci", store)
    assert store.digest_of("sci") == newest


def test_what_the_address_has_is_listed(server, publisher, www, key, trust, store):
    publish(publisher, www, key, 0)
    with pytest.raises(ImageMissingError) as caught:
        fetch_image(server.url, "other", store, trust=trust)
    assert caught.value.hint == "it has: sci"


def test_an_image_that_is_here_under_another_name(server, publisher, www, key, trust, store):
    publish(publisher, www, key, 0)
    digest = build(store, "mine", 0)
    fetched = fetch_image(server.url, "sci", store, trust=trust)
    assert (fetched.way, store.digest_of("sci")) == ("present", digest)


def test_the_command(server, www, tmp_path, capsys):
    build(ImageStore(), "sci", 0)
    assert main(["image", "key", "--json"]) == 0
    public = json.loads(capsys.readouterr().out)["key"]
    assert main(["image", "publish", "sci", str(www)]) == 0
    assert main(["image", "rm", "sci"]) == 0
    (tmp_path / "public").write_text(public + "\n")
    assert main(["image", "fetch", server.url, "sci", "--key", str(tmp_path / "public")]) == 0
    capsys.readouterr()
    assert main(["image", "update", "--json"]) == 0
    (updated,) = json.loads(capsys.readouterr().out)
    assert (updated["name"], updated["way"]) == ("sci", "present")
    assert updated["downloaded"] == sum(
        (www / name).stat().st_size for name in ("index.json", "index.json.sig")
    )


def test_the_private_key_is_for_nobody_else(key):
    assert key.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="already exists") as caught:
        keys.make_key(key)
    assert caught.value.message == f"{key} already exists; its public key is {keys.public_key(key)}"
    other = key.with_name("other.pem")
    other.write_text("text")
    with pytest.raises(UsageError, match=r"other\.pem already exists$"):
        keys.make_key(other)


def test_a_signature_by_another_program(key, tmp_path):
    """OpenSSL knows the key and the signature."""
    (tmp_path / "data").write_bytes(b"text")
    (tmp_path / "sig").write_bytes(base64.b64decode(keys.sign(key, b"text")))
    done = subprocess.run(
        [
            *("openssl", "pkeyutl", "-verify", "-rawin", "-inkey", key),
            *("-in", tmp_path / "data", "-sigfile", tmp_path / "sig"),
        ],
        check=False,
        capture_output=True,
        timeout=60,
    )
    assert b"Verified Successfully" in done.stdout + done.stderr


class TestPatch:
    """Patches alone."""

    def make(self, tmp_path: Path) -> tuple[bytes, Path, str]:
        store = ImageStore(tmp_path / "versions")
        build(store, "old", 0)
        digest = build(store, "new", 3)
        stream = io.BytesIO()
        with store.open("old") as old, store.open("new") as new:
            write_patch(old.directory, new.directory, new.manifest, stream)
            return stream.getvalue(), old.directory, digest

    def apply(self, patch: bytes, base: Path, digest: str, target: Path) -> None:
        target.mkdir()
        apply_patch(io.BytesIO(patch), base, digest, target, "the patch")

    def test_it_makes_the_new_image(self, tmp_path):
        patch, base, digest = self.make(tmp_path)
        self.apply(patch, base, digest, tmp_path / "made")
        made = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
        assert made == contents(3)

    def test_whatever_is_altered_is_found(self, tmp_path):
        patch, base, digest = self.make(tmp_path)
        for number, at in enumerate(range(0, len(patch), len(patch) // 25)):
            bad = bytearray(patch)
            bad[at] ^= 1 << number % 8
            with pytest.raises(ImageDamagedError, match="the patch is damaged"):
                self.apply(bytes(bad), base, digest, tmp_path / str(number))

    @pytest.mark.parametrize("length", [0, 10, 16, 24, 100, -1, -5000])
    def test_a_truncated_one(self, tmp_path, length):
        patch, base, digest = self.make(tmp_path)
        with pytest.raises(ImageDamagedError, match="the patch is damaged"):
            self.apply(patch[:length], base, digest, tmp_path / "made")

    def test_another_base(self, tmp_path):
        patch, base, digest = self.make(tmp_path)
        other = tmp_path / "other"
        other.mkdir()
        for path in base.iterdir():
            (other / path.name).write_bytes(hashlib.shake_128(b"x").digest(path.stat().st_size))
        with pytest.raises(ImageDamagedError, match="it makes another"):
            self.apply(patch, other, digest, tmp_path / "made")


# Proxies: the server stands for one, too, because nothing on loopback is reached by a proxy.


@pytest.fixture
def proxies(monkeypatch: pytest.MonkeyPatch, server: ImageServer) -> pytest.MonkeyPatch:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    proxy = f"http://me:p%40ss@127.0.0.1:{server.server_port}"
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("https_proxy", proxy)
    return monkeypatch


LOGIN = "Basic " + base64.b64encode(b"me:p@ss").decode()


def test_a_proxy_for_http(server, publisher, www, key, trust, store, proxies):
    publish(publisher, www, key, 0)
    fetch_image("http://images.example", "sci", store, trust=trust)
    assert files_of(store) == contents(0)
    assert set(server.proxied) == {("images.example", LOGIN)}


def test_a_proxy_for_https(server, publisher, www, key, trust, store, proxies, tmp_path):
    publish(publisher, www, key, 0)
    authority = Authority(tmp_path, "authority")
    server.security = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.security.load_cert_chain(*authority.sign("images", "DNS:images.example"))
    proxies.setenv("SSL_CERT_FILE", authority.pair.certificate)
    fetch_image("https://images.example", "sci", store, trust=trust)
    assert files_of(store) == contents(0)
    assert set(server.proxied) == {("images.example:443", LOGIN), ("", "")}


def test_this_computer_is_reached_without_a_proxy(server, publisher, www, key, trust, proxies):
    publish(publisher, www, key, 0)
    for host in ("127.0.0.1", "localhost"):
        url = f"http://{host}:{server.server_port}"
        fetch_image(url, "sci", ImageStore(www.parent / host), trust=trust)
    assert set(server.proxied) == {("", "")}


def test_hosts_that_need_no_proxy(proxies):
    proxies.setenv("no_proxy", "other.example,.images.example")
    found = {
        host: proxy_for(urlsplit(f"http://{host}/x")) is not None
        for host in ("other.example", "a.images.example:8080", "example", "[::1]:80", "a.localhost")
    }
    assert found == {**dict.fromkeys(found, False), "example": True}


def test_a_proxy_that_does_not_help(server, store, trust, proxies):
    with pytest.raises(HostError, match=r"reached by the proxy 127\.0\.0\.1:.* 403") as caught:
        fetch_image("https://images.example", "sci", store, trust=trust)
    assert "https_proxy" in caught.value.hint

    def wants_more(request: Request, _name: str) -> bool:
        request.send_error(407)
        return True

    server.faults["index"] = wants_more
    with pytest.raises(HostError, match="the proxy wants a name and a password"):
        fetch_image("http://images.example", "sci", store, trust=trust)
    proxies.setenv("http_proxy", "http://127.0.0.1:1")
    with pytest.raises(HostError, match=r"by the proxy 127\.0\.0\.1:1: Connection refused"):
        fetch_image("http://images.example", "sci", store, trust=trust)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://127.0.0.1:many", "//"])
def test_a_proxy_of_another_kind(proxy, store, trust, proxies):
    proxies.setenv("http_proxy", proxy)
    with pytest.raises(UsageError, match="http_proxy names no proxy that boincvm can use"):
        fetch_image("http://images.example", "sci", store, trust=trust)
