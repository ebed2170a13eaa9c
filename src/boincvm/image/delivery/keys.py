"""Ed25519 keys (RFC 8032): the publisher's in a PEM file, the public one as a line of text.

The package `cryptography` is imported only where something is signed or verified.
"""

import base64
import binascii
import os
from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.errors import BoincvmError, HostError, UsageError, host_error
from boincvm.host.files import open_descriptor, read_regular
from boincvm.host.own_files import make_directory, open_own
from boincvm.paths import configuration_directory

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_PREFIX = "ed25519:"
_KEY_BYTES = 32
_SIGNATURE_BYTES = 64
_MOST_FILE_BYTES = 4096


def default_key() -> Path:
    """Return the path of this user's key for publishing."""
    return configuration_directory() / "publish.pem"


def make_key(path: Path) -> str:
    """Write a new private key to the new file `path`, mode 0600, and return the public key.

    Raises UsageError if the file exists, HostError.
    """
    _require()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        make_directory(path.parent)
        descriptor = open_descriptor(path, "x", permissions=0o600, follow_links=False)
    except FileExistsError as error:
        raise UsageError(
            f"{path} already exists{_its_public_key(path)}",
            hint="name another file; boincvm image publish --former-key hands over to another key",
        ) from error
    except OSError as error:
        raise host_error(f"{path} cannot be written", error) from error
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    return _public_text(key)


def public_key(path: Path) -> str:
    """Return the public key of the private key in the file `path`. Raises UsageError, HostError."""
    return _public_text(_private(path))


def sign(path: Path, data: bytes) -> bytes:
    """Return a signature of `data` by the key in the file `path`, as a line of text."""
    return base64.b64encode(_private(path).sign(data)) + b"\n"


def parse_public(text: str) -> str:
    """Return a public key that was given as text or as the name of a file with it.

    Raises UsageError.
    """
    if not text.startswith(_PREFIX):
        try:
            text = read_regular(Path(text), _MOST_FILE_BYTES).decode("ascii", "replace")
        except OSError as error:
            raise UsageError(
                f"{text!r} is neither a public key nor a file with one: {error.strerror}",
                hint=f"a key begins with {_PREFIX}; boincvm image key prints it",
            ) from error
    return check_public(text.strip())


def check_public(key: str) -> str:
    """Return the one spelling of the public key `key`: base64 ends in bits that nothing uses.

    Raises UsageError unless it is a public key.
    """
    return _text_of(_public_bytes(key))


def is_signed(data: bytes, signature: bytes, key: str) -> bool:
    """Tell whether `signature`, a line of text, is one of `data` by the public key `key`.

    Raises UsageError, HostError.
    """
    _require()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        raw = base64.b64decode(signature.strip(), validate=True)
    except binascii.Error:
        return False
    if len(raw) != _SIGNATURE_BYTES:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(_public_bytes(key)).verify(raw, data)
    except InvalidSignature:
        return False
    return True


def _public_bytes(key: str) -> bytes:
    try:
        raw = base64.b64decode(key.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if not key.startswith(_PREFIX) or len(raw) != _KEY_BYTES:
        raise UsageError(
            f"{key[:80]!r} is not a public key",
            hint=f"a key is {_PREFIX} and 44 characters; boincvm image key prints it",
        )
    return raw


def _its_public_key(path: Path) -> str:
    try:
        return f"; its public key is {public_key(path)}"
    except BoincvmError:  # the file is something else: that it exists is the error
        return ""


def _public_text(key: "Ed25519PrivateKey") -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return _text_of(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


def _text_of(raw: bytes) -> str:
    return _PREFIX + base64.b64encode(raw).decode("ascii")


def _private(path: Path) -> "Ed25519PrivateKey":
    _require()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        with open_own(path) as stream:
            text = stream.read(_MOST_FILE_BYTES)
    except FileNotFoundError as error:
        raise UsageError(
            f"there is no key {path}", hint=f"make one: boincvm image key {path}"
        ) from error
    except OSError as error:
        raise host_error(f"{path} cannot be read", error) from error
    try:
        key = load_pem_private_key(text, None)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path} is not a private key without a passphrase") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path} is not an Ed25519 key", hint="make one: boincvm image key FILE")
    return key


def _require() -> None:
    """Raise HostError unless the package that signs and verifies is installed."""
    try:
        import cryptography
    except ImportError as error:
        raise HostError(
            "signatures need the Python package cryptography, which is not installed",
            hint="where boincvm came by pip: pip install 'boincvm[delivery]'; as a Debian package:"
            " apt-get install python3-cryptography",
        ) from error
    del cryptography
