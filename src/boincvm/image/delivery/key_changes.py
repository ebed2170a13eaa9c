"""keys.json: how the publisher of a directory went over from one key to another.

    {"format": 1, "changes": [{"old": KEY, "new": KEY, "signature": OF BOTH, BY THE OLD ONE}, ...]}

A host that trusts a key trusts those that it leads to. The file itself is not signed: a change that
is missing or altered leads nowhere.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from boincvm.errors import BoincvmError, ImageDamagedError
from boincvm.image.delivery import keys
from boincvm.json_value import fault_of, text

KEY_CHANGES = "keys.json"
FORMAT = 1
MOST_BYTES = 1 << 16
MOST_CHANGES = 100


@dataclass(frozen=True, slots=True)
class KeyChange:
    """One key hands over to another."""

    old: str
    """The public key that was used until then."""
    new: str
    """The public key that replaces it."""
    signature: str
    """Of both by the old key, in base64."""

    @property
    def is_valid(self) -> bool:
        """Tell whether the old key has signed it."""
        signature = self.signature.encode("ascii", "replace")
        return keys.is_signed(_statement(self.old, self.new), signature, self.old)


def sign_change(old_key: Path, new: str) -> KeyChange:
    """Have the private key in the file `old_key` hand over to the public key `new`.

    Raises UsageError, HostError.
    """
    old = keys.public_key(old_key)
    signature = keys.sign(old_key, _statement(old, new)).decode("ascii").strip()
    return KeyChange(old, new, signature)


def encode_changes(changes: tuple[KeyChange, ...]) -> bytes:
    """Return the content of the file."""
    document = {"format": FORMAT, "changes": [asdict(one) for one in changes]}
    return json.dumps(document, indent=2).encode("ascii") + b"\n"


def decode_changes(data: bytes, where: str) -> tuple[KeyChange, ...]:
    """Decode the content of the file at `where`. Raises ImageDamagedError."""
    try:
        if len(data) > MOST_BYTES:
            raise ValueError("it is too large")
        document = json.loads(data)
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']!r}, expected {FORMAT}")
        if len(document["changes"]) > MOST_CHANGES:
            raise ValueError(f"it has more than {MOST_CHANGES} changes")
        return tuple(_change(one) for one in document["changes"])
    except (ValueError, KeyError, TypeError, RecursionError, BoincvmError) as error:
        raise ImageDamagedError(
            f"{where} cannot be read: {fault_of(error)}",
            hint="it may need a newer boincvm; else ask who publishes it",
        ) from error


def later_keys(changes: tuple[KeyChange, ...], key: str) -> Iterator[str]:
    """Yield the keys that the public key `key` leads to, each once."""
    found = [key]
    for old in found:
        for change in changes:
            if change.old == old and change.new not in found and change.is_valid:
                found.append(change.new)
                yield change.new


def _statement(old: str, new: str) -> bytes:
    """Return what is signed; an index begins with a brace, so it is never taken for this."""
    return f"boincvm: {old} is replaced by {new}\n".encode("ascii")


def _change(one: dict[str, object]) -> KeyChange:
    old, new = (keys.check_public(text(one[name])) for name in ("old", "new"))
    return KeyChange(old, new, text(one["signature"]))
