"""Encoder and parser for STOMP 1.2 frames (https://stomp.github.io/stomp-specification-1.2.html).

Host and guest share this file. In the guest Python starts under emulation, about twenty times
slower than natively, so nothing is imported here. And code that a guest runs for the first time has
to be translated, so this file avoids `max`, which parses its arguments by a format, and copies of
copies (docs/checkpoints.md).
"""

from __future__ import annotations

COMMANDS = frozenset(
    (
        "CONNECT", "STOMP", "CONNECTED", "SEND", "SUBSCRIBE", "UNSUBSCRIBE", "ACK", "NACK", "BEGIN",
        "COMMIT", "ABORT", "DISCONNECT", "MESSAGE", "RECEIPT", "ERROR",
    )
)  # fmt: skip
HEARTBEAT = b"\n"
LINK_VERSION = "2"
"""The version of the messages between a host and a guest's agent, in the header `link-version` of
CONNECT. When it changes, change the versions of golden snapshots and checkpoints as well: they
contain an agent."""

MAXIMUM_HEAD = 16 << 10
MAXIMUM_HEADERS = 64
MAXIMUM_BODY = 1 << 20

_WITH_BODY = frozenset(("SEND", "MESSAGE", "ERROR"))
"""Only these may have a body; in others `content-length` is ignored."""
_UNESCAPED = frozenset(("CONNECT", "CONNECTED"))  # these two frames carry headers unescaped
_ESCAPES = {"\\": "\\\\", "\r": "\\r", "\n": "\\n", ":": "\\c"}
_UNESCAPES = {"\\": "\\", "r": "\r", "n": "\n", "c": ":"}


class StompError(Exception):
    """Invalid STOMP 1.2, or a frame that exceeds the limits."""

    frames: list[Frame] = []  # noqa: RUF012 - never modified
    """Complete frames that preceded the invalid bytes."""


class Frame:
    """One frame; `body` holds exactly the bytes that the sender wrote."""

    __slots__ = ("body", "command", "headers")

    def __init__(self, command: str, headers: dict[str, str], body: bytes = b"") -> None:
        self.command = command
        self.headers = headers
        self.body = body

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Frame)
            and self.command == other.command
            and self.headers == other.headers
            and self.body == other.body
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Frame({self.command!r}, {self.headers!r}, {len(self.body)} bytes)"


def encode_head(command: str, headers: dict[str, str], body_length: int) -> bytes:
    """Encode everything before the body; the body and one NUL byte must follow."""
    plain = command in _UNESCAPED
    lines = [command]
    for name, value in headers.items():
        lines.append(f"{name}:{value}" if plain else f"{_escape(name)}:{_escape(value)}")
    if body_length:
        lines.append(f"content-length:{body_length}")
    lines.append("\n")
    return "\n".join(lines).encode()


def encode(command: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """Encode a whole frame, with `content-length` if there is a body."""
    return b"".join((encode_head(command, headers, len(body)), body, b"\0"))


class Parser:
    """Turns bytes, in pieces of any size, into frames.

    `maximum_body` and `maximum_head` are in bytes; `maximum_headers` is a number of lines. After a
    StompError the parser cannot be used any more.
    """

    has_escapes = True
    """False for STOMP 1.0, which has no escapes, and until the version is agreed."""
    passes_over_headers = False
    """True for a broker that forwards invalid headers: such a MESSAGE then keeps only its length.
    If False, it is a StompError."""

    def __init__(
        self,
        maximum_body: int = MAXIMUM_BODY,
        maximum_head: int = MAXIMUM_HEAD,
        maximum_headers: int = MAXIMUM_HEADERS,
    ) -> None:
        self._maximum_body = maximum_body
        self._maximum_head = maximum_head
        self._maximum_headers = maximum_headers
        self._held = bytearray()  # the beginning of an incomplete frame
        self._searched = 0
        self._head: tuple[str, dict[str, str]] | None = None
        self._body_length = -1

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes. Raises StompError."""
        held = self._held
        if held:
            held += data
        buffer = held or data  # usually whole frames, which need no copy
        frames: list[Frame] = []
        start = 0
        while True:
            try:
                if self._head is None:
                    start = self._read_head(buffer, start)
                    if self._head is None:
                        break
                end = self._find_end(buffer, start)
            except StompError as error:
                error.frames = frames
                raise
            if end < 0:
                break
            command, headers = self._head
            body = bytes(memoryview(held)[start:end]) if held else data[start:end]
            frames.append(Frame(command, headers, body))
            start = end + 1
            self._head = None
            self._searched = start
        if held:
            del held[:start]
        elif start < len(data):
            held += data[start:]
        self._searched -= start
        return frames

    def _read_head(self, buffer: bytes | bytearray, start: int) -> int:
        """Parse the head at `start` if it is complete; return the offset to continue from."""
        length = len(buffer)
        while start < length and buffer[start] in b"\r\n":
            start += 1  # heart-beats, and line ends after a frame
        search_from = self._searched - 3
        if search_from < start:
            search_from = start
        end = buffer.find(b"\n\n", search_from)
        # Both may match the same line end: the one that begins first ends the head.
        wide = buffer.find(b"\n\r\n", search_from, end + 1 if end >= 0 else length)
        if wide >= 0:
            end, after = wide, wide + 3
        else:
            after = end + 2
        if end < 0:
            if length - start > self._maximum_head:
                raise StompError(f"a head of more than {self._maximum_head} bytes")
            self._searched = length
            return start
        if end - start > self._maximum_head:
            raise StompError(f"a head of more than {self._maximum_head} bytes")
        head = buffer[start:end]
        try:
            self._head = _parse_head(head, self.has_escapes, self._maximum_headers)
        except StompError:
            if not self.passes_over_headers or not head.startswith(b"MESSAGE"):
                raise
            self._head = "MESSAGE", _length_alone(head)
        command, headers = self._head
        self._body_length = self._content_length(headers) if command in _WITH_BODY else -1
        self._searched = after
        return after

    def _content_length(self, headers: dict[str, str]) -> int:
        text = headers.get("content-length")
        if text is None:
            return -1
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise StompError(f"content-length {text[:20]!r} is not a number")
        length = int(text)
        if length > self._maximum_body:
            raise StompError(f"a body of {length} bytes; at most {self._maximum_body}")
        return length

    def _find_end(self, buffer: bytes | bytearray, start: int) -> int:
        """Return the offset of the NUL that ends the body at `start`, or -1."""
        if self._body_length >= 0:
            end = start + self._body_length
            if len(buffer) <= end:
                return -1
            if buffer[end] != 0:
                raise StompError("no NUL byte after the body")
            return end
        end = buffer.find(b"\0", self._searched)
        self._searched = len(buffer)
        if (len(buffer) if end < 0 else end) - start > self._maximum_body:
            raise StompError(f"a body of more than {self._maximum_body} bytes")
        return end


def _parse_head(
    head: bytes | bytearray, has_escapes: bool, maximum_headers: int
) -> tuple[str, dict[str, str]]:
    try:
        text = head.decode()
    except UnicodeDecodeError:
        raise StompError("a head that is not UTF-8") from None
    if "\r" in text:
        text = _without_carriage_returns(text)
    command, *lines = text.split("\n")
    if command not in COMMANDS:
        raise StompError(f"{command[:40]!r} is not a STOMP command")
    if len(lines) > maximum_headers:
        raise StompError(f"more than {maximum_headers} headers")
    plain = command in _UNESCAPED or not has_escapes
    headers: dict[str, str] = {}
    for line in lines:
        # Colons in values should be escaped; many clients do not, and all brokers accept it.
        name, colon, value = line.partition(":")
        if not colon or not name:
            raise StompError(f"{line[:40]!r} is not a header")
        if not plain:
            name, value = _unescape(name), _unescape(value)
        headers.setdefault(name, value)  # the first of repeated headers counts
    return command, headers


def _length_alone(head: bytes | bytearray) -> dict[str, str]:
    """Return only the body's length from a head that is otherwise invalid."""
    for line in head.decode("ascii", "replace").split("\n"):
        name, _, value = line.partition(":")
        if name == "content-length":
            return {name: value.removesuffix("\r")}
    return {}


def _without_carriage_returns(head: str) -> str:
    r"""Replace the line ends \r\n, which STOMP 1.2 allows as well, with \n."""
    head = head.removesuffix("\r").replace("\r\n", "\n")
    if "\r" in head:
        raise StompError("a carriage return within a line")
    return head


def _escape(text: str) -> str:
    for character, escape in _ESCAPES.items():  # the backslash comes first
        if character in text:
            text = text.replace(character, escape)
    return text


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    first, *rest = text.split("\\")
    parts = [first]
    pieces = iter(rest)
    for piece in pieces:
        if piece:
            if piece[0] not in _UNESCAPES:
                raise StompError(f"\\{piece[0]} is not an escape")
            parts.append(_UNESCAPES[piece[0]] + piece[1:])
        else:  # an escaped backslash leaves an empty piece
            following = next(pieces, None)
            if following is None:
                raise StompError("a lone backslash ends a header")
            parts.append("\\" + following)
    return "".join(parts)
