"""Trickles: messages between an app and the project's server while the task runs.

(api/boinc_api.cpp, boinc_send_trickle_up and boinc_receive_trickle_down.)
"""

from pathlib import Path

from boincvm.boinc.tags import escape
from boincvm.byte_text import encoded
from boincvm.host.atomic_files import write_atomically

TRICKLE_UP_FILE = "trickle_up.xml"
LARGEST_TRICKLE = 1 << 20
"""Bytes; a larger message is not suitable for a trickle."""
_TRICKLE_DOWN = "trickle_down"


def write_trickle_up(slot: Path, variety: str, text: str | bytes) -> None:
    """Leave a message for the client to send, replacing one that it has not read yet.

    `variety` tells the server's handler the kind of message; `text` is XML by custom, and not
    checked. Raises ValueError if it is too large, OSError.
    """
    content = encoded(f"<variety>{escape(variety)}</variety>\n")
    content += text if isinstance(text, bytes) else encoded(text)
    if len(content) > LARGEST_TRICKLE:
        raise ValueError(f"a trickle of more than {LARGEST_TRICKLE} bytes")
    write_atomically(slot / TRICKLE_UP_FILE, content)


def trickle_downs(slot: Path) -> list[Path]:
    """Return the received messages, sorted by name; the reader removes them. Raises OSError."""
    return sorted(
        path
        for path in slot.iterdir()
        if _TRICKLE_DOWN in path.name and path.is_file() and not path.is_symlink()
    )
