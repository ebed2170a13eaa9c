"""How STOMP 1.0, 1.1 and 1.2 differ on the wire, for peers other than boincvm.

Source: https://stomp.github.io/stomp-specification-1.1.html and -1.2.html, "Value Encoding".
"""

from collections.abc import Mapping

from boincvm.bus.stomp import encode_head

VERSIONS = ("1.2", "1.1", "1.0")
"""In order of preference."""


def negotiate(accepted: str | None) -> str | None:
    """Return the best version in a CONNECT's `accept-version`, or 1.0 without that header."""
    if accepted is None:
        return "1.0"
    versions = {version_text.strip() for version_text in accepted.split(",")}
    return next((version for version in VERSIONS if version in versions), None)


def encode_lines(version: str, headers: Mapping[str, str]) -> bytes:
    """Encode header lines.

    Characters that a version cannot express are left out: line ends in 1.0, carriage returns in
    1.1.
    """
    if version == "1.2":
        return encode_head("", dict(headers), 0)[1:-1]
    if version == "1.1":
        encodable = {name: value for name, value in headers.items() if "\r" not in name + value}
        return encode_head("", encodable, 0)[1:-1]
    lines = [
        f"{name}:{value}\n"
        for name, value in headers.items()
        if not set("\r\n") & set(name + value) and ":" not in name
    ]
    return "".join(lines).encode()


def encode_frame(
    version: str, command: str, headers: Mapping[str, str], body: bytes = b""
) -> bytes:
    """Encode a whole frame, with `content-length`."""
    length = b"content-length:%d\n" % len(body)
    return b"".join(
        (command.encode(), b"\n", encode_lines(version, headers), length, b"\n", body, b"\0")
    )


def message_rest(version: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Encode a MESSAGE without its first line; more headers may be put in front."""
    length = b"content-length:%d\n\n" % len(body)
    return b"".join((encode_lines(version, headers), length, body, b"\0"))
