"""A certificate of 127.0.0.1, signed by itself."""

import subprocess
from pathlib import Path
from typing import NamedTuple

LIMIT = 30.0


class Certificate(NamedTuple):
    """Files: the certificate and its key in PEM, and both in PKCS 12."""

    certificate: Path
    key: Path
    store: Path


def self_signed(directory: Path, passcode: str) -> Certificate:
    """`passcode`: of the store."""
    made = Certificate(*(directory / name for name in ("certificate.pem", "key.pem", "store.p12")))
    _openssl(
        *["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
        *["-keyout", made.key, "-out", made.certificate, "-days", "2", "-subj", "/CN=localhost"],
        *["-addext", "subjectAltName=IP:127.0.0.1"],
    )
    _openssl(
        *["pkcs12", "-export", "-inkey", made.key, "-in", made.certificate],
        *["-out", made.store, "-passout", f"pass:{passcode}"],
    )
    return made


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=LIMIT)
