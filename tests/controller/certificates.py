"""Certificates of a test's own, made by openssl."""

import subprocess
from pathlib import Path
from typing import NamedTuple


class Pair(NamedTuple):
    certificate: str
    key: str


class Authority:
    """Signs for `127.0.0.1` and for clients."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = name
        self.pair = self._new(name, "-x509", "-days", "2", "-subj", f"/CN={name}")

    def sign(self, name: str) -> Pair:
        address = ("-addext", "subjectAltName=IP:127.0.0.1")
        ours = ("-CA", self.pair.certificate, "-CAkey", self.pair.key)
        subject = ("-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:FALSE")
        return self._new(f"{self._name}-{name}", "-x509", "-days", "2", *ours, *subject, *address)

    def _new(self, name: str, *options: str) -> Pair:
        pair = Pair(str(self._directory / f"{name}.pem"), str(self._directory / f"{name}.key"))
        new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        subprocess.run(
            ["openssl", "req", *new, *options, "-out", pair.certificate, "-keyout", pair.key],
            check=True,
            capture_output=True,
            timeout=60,
        )
        return pair
