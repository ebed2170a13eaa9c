"""STOMP 1.2 frames (https://stomp.github.io/stomp-specification-1.2.html), both directions.

Host and guest share this file. In the guest Python starts under emulation, about twenty times
slower than natively, so nothing is imported here. And what a guest does for the first time has
to be translated, so there is neither `max`, which takes its arguments apart by a format, nor a
copy of a copy (docs/checkpoints.md).
"""

from __future__ import annotations

COMMANDS = frozenset(
    (
        "CONNECT", "STOMP", "CONNECTED", "SEND", "SUBSCRIBE", "UNSUBSCRIBE", "ACK", "NACK", "BEGIN",
        "COMMIT", "ABORT", "DISCONNECT", "MESSAGE", "RECEIPT", "ERROR",
    )
)  # fmt: skip
HEARTBEAT = b"\n"

MAXIMUM_HEAD = 16 << 10
MAXIMUM_HEADERS = 64
MAXIMUM_BODY = 1 << 20

_WITH_BODY = frozenset(("SEND", "MESSAGE", "ERROR"))
"""Only these may have one; what another says of its body's length is about nothing."""
_UNESCAPED = frozenset(("CONNECT", "CONNECTED"))  # these two frames carry headers as they are
_ESCAPES = {"\\": "\\\\", "\r": "\\r", "\n": "\\n", ":": "\\c"}
_UNESCAPES = {"\\": "\\", "r": "\r", "n": "\n", "c": ":"}


class StompError(Exception):
    """The bytes are no STOMP 1.2 frame, or one beyond the caps."""

    frames: list[Frame] = []  # noqa: RUF012 - never changed
    """Complete ones that came before these bytes, together with them."""


class Frame:
    """One frame. `body` is what the sender wrote, byte for byte."""

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
    """All of a frame before its body; the body and one NUL byte are to follow."""
    plain = command in _UNESCAPED
    lines = [command]
    for name, value in headers.items():
        lines.append(f"{name}:{value}" if plain else f"{_escape(name)}:{_escape(value)}")
    if body_length:
        lines.append(f"content-length:{body_length}")
    lines.append("\n")
    return "\n".join(lines).encode()


def encode(command: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """A whole frame; `content-length` is added where there is a body."""
    return b"".join((encode_head(command, headers, len(body)), body, b"\0"))


class Parser:
    """Takes bytes as they come, gives frames as they are complete.

    `maximum_body` and `maximum_head` are in bytes; `maximum_headers` is a number of lines. After
    a StompError the parser is of no more use.
    """

    has_escapes = True
    """Off for a peer of STOMP 1.0, which has none, and while the version is not yet agreed."""
    passes_over_headers = False
    """On for a broker that lets others send what is no header: such a MESSAGE has none then, but
    for its length. Else it is a StompError."""

    def __init__(
        self,
        maximum_body: int = MAXIMUM_BODY,
        maximum_head: int = MAXIMUM_HEAD,
        maximum_headers: int = MAXIMUM_HEADERS,
    ) -> None:
        self._maximum_body = maximum_body
        self._maximum_head = maximum_head
        self._maximum_headers = maximum_headers
        self._held = bytearray()  # the beginning of a frame that is not complete
        self._searched = 0
        self._head: tuple[str, dict[str, str]] | None = None
        self._body_length = -1

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes. Raises StompError."""
        held = self._held
        if held:
            held += data
        buffer = held or data  # mostly whole frames come, which are not copied before they are read
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
        """Parses a head that begins at `start` if it is all there; returns where to go on."""
        length = len(buffer)
        while start < length and buffer[start] in b"\r\n":
            start += 1  # heart-beats and the line ends that may follow a frame
        search_from = self._searched - 3
        if search_from < start:
            search_from = start
        end = buffer.find(b"\n\n", search_from)
        # The two may share a line end: whichever begins first is the end of the head.
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
        """Where the body that begins at `start` ends (its NUL byte), or -1."""
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
        # A colon in a value should be escaped; many clients do not, and all brokers bear it.
        name, colon, value = line.partition(":")
        if not colon or not name:
            raise StompError(f"{line[:40]!r} is not a header")
        if not plain:
            name, value = _unescape(name), _unescape(value)
        headers.setdefault(name, value)  # of repeated headers the first counts
    return command, headers


def _length_alone(head: bytes | bytearray) -> dict[str, str]:
    """Where the body ends, as a head says that is invalid otherwise."""
    for line in head.decode("ascii", "replace").split("\n"):
        name, _, value = line.partition(":")
        if name == "content-length":
            return {name: value.removesuffix("\r")}
    return {}


def _without_carriage_returns(head: str) -> str:
    """`head` with the line ends that STOMP 1.2 allows beside \\n made \\n."""
    head = head.removesuffix("\r").replace("\r\n", "\n")
    if "\r" in head:
        raise StompError("a carriage return within a line")
    return head


def _escape(text: str) -> str:
    for character, escape in _ESCAPES.items():  # the backslash first
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
        else:  # an escaped backslash leaves an empty piece before what follows it
            following = next(pieces, None)
            if following is None:
                raise StompError("a lone backslash ends a header")
            parts.append("\\" + following)
    return "".join(parts)
