"""The system's certificate authorities are found where OpenSSL does not look for them."""

import ssl
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from boincvm.client.address import find_address
from boincvm.errors import HostError
from boincvm.host import authorities
from boincvm.image.delivery.server import Server
from support.certificates import self_signed

NAMES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file with the only authority, on a system on which OpenSSL finds none."""
    empty = tmp_path / "certs"
    empty.mkdir()
    where = ssl.DefaultVerifyPaths(None, str(empty), NAMES[0], "/missing", NAMES[1], "/missing")
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: where)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    file = self_signed(tmp_path, "x").certificate
    monkeypatch.setattr(authorities, "FILES", (tmp_path / "missing", file))
    return file


def are_trusted(file: Path) -> bool:
    authority = ssl.PEM_cert_to_DER_cert(file.read_text())
    return authority in authorities.system_security().get_ca_certs(binary_form=True)


def test_the_first_file_that_exists_is_trusted(file: Path) -> None:
    assert are_trusted(file)


def test_what_openssl_finds_or_was_told_is_enough(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as context:
        context.setenv("SSL_CERT_FILE", "/missing")
        assert not are_trusted(file)
    (tmp_path / "certs/one.pem").touch()
    assert not are_trusted(file)


def test_a_file_without_authorities_is_reported(file: Path) -> None:
    file.write_text("none")
    with pytest.raises(HostError, match="cannot be read"):
        authorities.system_security()


def test_images_are_fetched_from_a_server_that_they_certify(file: Path, tmp_path: Path) -> None:
    (tmp_path / "index").write_text("images")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    security = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    security.load_cert_chain(file, tmp_path / "key.pem")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        web.socket = security.wrap_socket(web.socket, server_side=True)
        web.daemon_threads = False  # their end is waited for
        thread = Thread(target=web.serve_forever)
        thread.start()
        server = Server(f"https://127.0.0.1:{web.server_port}")
        try:
            assert server.read("index", 10) == b"images"
        finally:
            server.close()
            web.shutdown()
            thread.join()


def test_a_controller_is_trusted_by_them(file: Path) -> None:
    security = find_address("https://127.0.0.1", {}).security
    assert security is not None
    authority = ssl.PEM_cert_to_DER_cert(file.read_text())
    assert authority in security.get_ca_certs(binary_form=True)
