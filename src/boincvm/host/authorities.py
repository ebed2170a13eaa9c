"""The certificate authorities that this computer trusts.

An OpenSSL that came from another system, as the one of a volunteer's folder, looks for them where
that system has them.
"""

import os
import ssl
import sys
from pathlib import Path

from boincvm.errors import HostError

FILES = (
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # Fedora, Red Hat
    Path("/etc/ssl/ca-bundle.pem"),  # SUSE
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Arch, Gentoo
    Path("/etc/ssl/cert.pem"),  # Alpine, macOS
)


def system_security() -> ssl.SSLContext:
    """Return settings of TLS that trust the system's authorities. Raises HostError."""
    security = ssl.create_default_context()
    if sys.platform != "win32" and not _are_found_by_openssl():
        file = next((file for file in FILES if file.is_file()), None)
        if file is not None:
            try:
                security.load_verify_locations(file)
            except OSError as error:  # includes SSLError
                raise HostError(
                    f"the certificate authorities in {file} cannot be read: "
                    f"{error.strerror or error}",
                    hint="SSL_CERT_FILE=FILE names another file",
                ) from error
    return security


def _are_found_by_openssl() -> bool:
    """Tell whether OpenSSL finds some by itself, or was told where."""
    where = ssl.get_default_verify_paths()
    if where.openssl_cafile_env in os.environ or where.openssl_capath_env in os.environ:
        return True
    if where.cafile:
        return True
    return bool(where.capath) and any(Path(where.capath).iterdir())
