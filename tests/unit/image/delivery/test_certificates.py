"""Images from a server of HTTPS that proves who it is, or does not."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from boincvm.errors import HostError
from boincvm.image.delivery.fetch import fetch_image
from boincvm.image.delivery.trust import Trust
from support.certificates import Authority, Pair
from support.image_server import ImageServer, serving

pytestmark = pytest.mark.usefixtures("own_home", "digest")


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """Return the only authority that this computer trusts."""
    authority = Authority(tmp_path, "authority")
    monkeypatch.setenv("SSL_CERT_FILE", authority.pair.certificate)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    return authority


@contextmanager
def certified(www: Path, pair: Pair) -> Iterator[ImageServer]:
    security = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    security.load_cert_chain(*pair)
    with serving(www, security) as server:
        yield server


def test_a_certificate_that_is_right(authority, store, trust, www):
    with certified(www, authority.sign("images")) as server:
        assert fetch_image(server.url, "sci", store, trust=trust).way == "whole"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("another address", "IP address mismatch"),
        ("another name", "IP address mismatch"),
        ("expired", "certificate has expired"),
        ("unknown", "unable to get local issuer certificate"),
        ("its own", "self-signed certificate"),
    ],
)
def test_a_certificate_that_is_not(fault, reason, authority, store, tmp_path, www):
    """Nothing is asked of such a server, whatever else would be trusted."""
    match fault:
        case "another address":
            pair = authority.sign("images", "IP:127.0.0.2")
        case "another name":
            pair = authority.sign("images", "DNS:images.example")
        case "expired":
            pair = authority.sign_expired("images")
        case "unknown":
            pair = Authority(tmp_path, "stranger").sign("images")
        case _:
            pair = Authority(tmp_path, "self").pair
    for trust in (Trust(first_use=True), Trust(digest="0" * 64)):
        with (
            certified(www, pair) as server,
            pytest.raises(HostError, match=f"is not trusted: .*{reason}") as caught,
        ):
            fetch_image(server.url, "sci", store, trust=trust)
        assert server.asked == []
        assert caught.value.hint == "check this computer's clock and the address"
    assert store.names() == []


def test_a_server_of_http_at_an_address_of_https(authority, server, store, trust):
    with pytest.raises(HostError, match="the connection broke off"):
        fetch_image(server.url.replace("http:", "https:"), "sci", store, trust=trust)
    assert server.asked == []
