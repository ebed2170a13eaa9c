"""Servers of images that are broken, slow or hostile."""

import pytest

from boincvm.errors import (
    HostError,
    UsageError,
)
from boincvm.image.delivery import server as web
from boincvm.image.delivery.fetch import fetch_image, update_image
from boincvm.image.delivery.publish import publish_images
from boincvm.image.delivery.server import Patience
from boincvm.image.store import ImageStore
from support.image_server import Fault, Request, broken_off, other_range, refusing, whole
from support.versions import build

pytestmark = pytest.mark.usefixtures("own_home", "digest")
HASTE = Patience(stall=0.2, answer=0.5)
SPEED = Patience(window=0.2, least_rate=1 << 20)


@pytest.mark.parametrize("change", [-1, 1])
def test_another_size_is_refused(change, server, store, trust, www):
    (path,) = www.glob("images/*.gz")
    content = path.read_bytes()
    path.write_bytes(content[:change] if change < 0 else content + b"x")
    with pytest.raises(HostError, match="another size than its index says"):
        fetch_image(server.url, "sci", store, trust=trust)


def test_a_connection_that_breaks_off_is_continued(server, store, trust):
    server.faults["tar.gz"] = broken_off(3)
    fetched = fetch_image(server.url, "sci", store, trust=trust)
    ranges = [asked for name, asked in server.asked if name.endswith("tar.gz")]
    starts = [asked.partition("-")[0] for asked in ranges]
    assert starts == ["", "bytes=50000", "bytes=100000", "bytes=150000"]
    assert fetched.downloaded < fetched.whole + 2000


def test_a_server_that_dies(server, store, trust):
    """What has arrived is kept."""

    def dies(request: Request, name: str) -> bool:
        request.server.shutdown()
        request.server.socket.close()
        request.answer(whole(request.server, name), most=50_000)
        return True

    server.faults["tar.gz"] = dies
    with pytest.raises(HostError, match="cannot be reached: Connection refused"):
        fetch_image(server.url, "sci", store, trust=trust)
    assert store.names() == []
    assert [path.stat().st_size for path in (store.root / "downloads").iterdir()] == [50_000]


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


def test_an_index_without_end(server, store, trust):
    def answer(request: Request, name: str) -> bool:
        request.send_response(200)
        request.send_header("Content-Length", str(1 << 40))
        request.end_headers()
        return True

    server.faults["index.json"] = answer
    with pytest.raises(HostError, match="too many bytes"):
        fetch_image(server.url, "sci", store, trust=trust)


def test_blocks_from_a_server_without_ranges(server, store, trust):
    def answer(request: Request, name: str) -> bool:
        request.answer(whole(request.server, name), ranges=False)
        return True

    build(store, "mine", 3)
    server.faults[".blocks"] = answer
    assert fetch_image(server.url, "sci", store, trust=trust).way == "whole"


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
