"""Certificates for a test, made by openssl."""

import subprocess
from pathlib import Path
from typing import NamedTuple

LIMIT = 60.0
"""Seconds that openssl may take."""
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Certificate(NamedTuple):
    """Files: the certificate and its key in PEM, and both in PKCS 12."""

    certificate: Path
    key: Path
    store: Path


def self_signed(directory: Path, passcode: str) -> Certificate:
    """Make a self-signed certificate for 127.0.0.1; `passcode`: of the PKCS 12 store."""
    made = Certificate(*(directory / name for name in ("certificate.pem", "key.pem", "store.p12")))
    _openssl(
        *["req", "-x509", *_NEW_KEY, "-keyout", made.key, "-out", made.certificate],
        *["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
    )
    _openssl(
        *["pkcs12", "-export", "-inkey", made.key, "-in", made.certificate],
        *["-out", made.store, "-passout", f"pass:{passcode}"],
    )
    return made


class Pair(NamedTuple):
    certificate: str
    key: str


class Authority:
    """Signs certificates for `127.0.0.1` and for clients."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = name
        self.pair = self._new(name, "-x509", "-days", "2", "-subj", f"/CN={name}")

    def sign(self, name: str, host: str = "IP:127.0.0.1") -> Pair:
        address = ("-addext", f"subjectAltName={host}")
        ours = ("-CA", self.pair.certificate, "-CAkey", self.pair.key)
        subject = ("-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:FALSE")
        return self._new(f"{self._name}-{name}", "-x509", "-days", "2", *ours, *subject, *address)

    def sign_expired(self, name: str) -> Pair:
        """Sign a certificate for `127.0.0.1` that was valid until yesterday."""
        address = ("-addext", "subjectAltName=IP:127.0.0.1")
        asked = self._new(f"{self._name}-{name}", "-subj", f"/CN={name}", *address)
        expired = f"{asked.certificate}.expired"
        ours = ("-CA", self.pair.certificate, "-CAkey", self.pair.key, "-copy_extensions", "copy")
        _openssl("x509", "-req", "-in", asked.certificate, *ours, "-days", "-1", "-out", expired)
        return Pair(expired, asked.key)

    def _new(self, name: str, *options: str) -> Pair:
        pair = Pair(str(self._directory / f"{name}.pem"), str(self._directory / f"{name}.key"))
        _openssl("req", "-new", *_NEW_KEY, *options, "-out", pair.certificate, "-keyout", pair.key)
        return pair


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=LIMIT)
