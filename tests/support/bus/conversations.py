"""What a client may send to a broker, right and wrong, and how each broker takes it.

docs/bus.md explains what the embedded broker does where the three differ.
"""

from typing import NamedTuple

REFUSED, WAITS = "refused", "waits"
"""An ERROR or the connection's end; no answer at all."""
TOPIC, HOST = b"@TOPIC@", b"@HOST@"
"""Placeholders for a topic of the conversation's own, and for the broker's host name."""


class Talk(NamedTuple):
    """One conversation with a broker."""

    name: str
    sent: bytes
    version: str | None = "1.2"
    """Agreed upon beforehand, and the client has subscribed to TOPIC as `s`. None: it has not
    logged in."""
    hears: bool = True
    """The client still has that subscription at the end."""

    @property
    def ends(self) -> bool:
        """Tell whether the client disconnects."""
        return b"DISCONNECT" in self.sent


def login(accept: str | None = "1.2", more: bytes = b"", command: bytes = b"CONNECT") -> bytes:
    version = b"" if accept is None else b"accept-version:%s\n" % accept.encode()
    own = b"host:%s\nlogin:host\npasscode:right\n" % HOST
    return command + b"\n" + version + own + more + b"\n\0"


def send(headers: bytes = b"", body: bytes = b"abc", to: bytes = TOPIC) -> bytes:
    return b"SEND\ndestination:" + to + b"\n" + headers + b"\n" + body + b"\0"


def frame(command: str, *headers: str, body: str = "") -> bytes:
    return "\n".join((command, *headers, "", body + "\0")).encode()


def check_all(version: str, *talks: Talk) -> list[Talk]:
    return [talk._replace(name=f"{version}: {talk.name}", version=version) for talk in talks]


OTHER = f"destination:{TOPIC.decode()}.other"
BEGIN, COMMIT, ABORT = (frame(one, "transaction:t") for one in ("BEGIN", "COMMIT", "ABORT"))

LOGINS = [
    talk._replace(name=f"login: {talk.name}", version=None)
    for talk in (
        Talk("no accept-version", login(None)),
        Talk("all versions", login("1.0,1.1,1.2")),
        Talk("two versions", login("1.0,1.1")),
        Talk("the versions in another order", login("1.2,1.0")),
        Talk("an unknown version beside one", login("9.9,1.1")),
        Talk("an unknown version", login("9.9")),
        Talk("a space before a version", login("1.1, 1.2")),
        Talk("STOMP in place of CONNECT", login(command=b"STOMP")),
        Talk("no host", login().replace(b"host:" + HOST + b"\n", b"")),
        Talk("a backslash, which is no escape here", login(more=b"x:a\\qb\\\n")),
        Talk("a colon", login(more=b"x:a:b\n")),
        Talk("lines that end with CR LF", login().replace(b"\n", b"\r\n")),
        Talk("a second login header", login(more=b"login:nobody\n")),
        Talk("line ends before it", b"\n\n" + login()),
        Talk("a NUL before it", b"\0" + login()),
        Talk("lower case", login(command=b"connect")),
        Talk("something else first", send()),
        Talk("a receipt is wanted", login(more=b"receipt:r\n")),
        Talk("a heart-beat that is a word", login(more=b"heart-beat:often\n")),
        Talk("a heart-beat of one number", login(more=b"heart-beat:5000\n")),
        Talk("a negative heart-beat", login(more=b"heart-beat:-1,0\n")),
        Talk("a length, and no body", login(more=b"content-length:5\n")),
        Talk("a body", login()[:-1] + b"abc\0"),
        Talk("a wrong passcode", login().replace(b"right", b"wrong")),
    )
]
LENGTHS = [
    Talk("length: right", send(b"content-length:3\n")),
    Talk("length: right, with NUL in the body", send(b"content-length:3\n", b"a\0c")),
    Talk("length: none", send()),
    Talk("length: none, and no body", send(body=b"")),
    Talk("length: 0", send(b"content-length:0\n", b"")),
    Talk("length: too small", send(b"content-length:2\n")),
    Talk("length: 0 with a body", send(b"content-length:0\n")),
    Talk("length: too large", send(b"content-length:9\n")),
    Talk("length: far too large", send(b"content-length:99999999999\n")),
    Talk("length: negative", send(b"content-length:-3\n")),
    Talk("length: a word", send(b"content-length:x\n")),
    Talk("length: empty", send(b"content-length:\n")),
    Talk("length: a fraction", send(b"content-length:3.0\n")),
    Talk("length: with a sign", send(b"content-length:+3\n")),
    Talk("length: with a space", send(b"content-length: 3\n")),
    Talk("length: with a zero before it", send(b"content-length:03\n")),
    Talk("length: twice, the first is right", send(b"content-length:3\ncontent-length:9\n")),
    Talk("length: twice, the second is right", send(b"content-length:2\ncontent-length:3\n")),
    Talk("length: in capitals", send(b"Content-Length:2\n")),
    *(
        Talk(
            f"length {length!r} of {command} without a body",
            before + frame(command, *headers, "receipt:r", f"content-length:{length}"),
            hears=command != "UNSUBSCRIBE",
        )
        for length in ("5", "x", "-1")
        for command, before, headers in (
            ("SUBSCRIBE", b"", ("id:t", OTHER)),
            ("UNSUBSCRIBE", b"", ("id:s",)),
            ("BEGIN", b"", ("transaction:t",)),
            ("COMMIT", BEGIN, ("transaction:t",)),
            ("ABORT", BEGIN, ("transaction:t",)),
            ("DISCONNECT", b"", ()),
        )
    ),
    Talk("a body on SUBSCRIBE", frame("SUBSCRIBE", "id:t", OTHER, "receipt:r", body="body")),
    Talk("a body on BEGIN", frame("BEGIN", "transaction:t", "receipt:r", body="body")),
    Talk(
        "a body with NUL on SUBSCRIBE",
        frame("SUBSCRIBE", "id:t", OTHER, "receipt:r", "content-length:5", body="bo\0dy"),
    ),
    Talk("a body that is no UTF-8", send(body=b"\xfc\xff")),
]


def headers_in(version: str) -> list[Talk]:
    """Return conversations with all kinds of headers, whose meaning may differ by version."""
    return check_all(
        version,
        Talk("all escapes", send(b"x:a\\cb\\\\c\\nd\n")),
        Talk("an escape in a name", send(b"x\\cy:a\n")),
        Talk("a carriage return, escaped", send(b"x:a\\rb\n")),
        Talk("a carriage return, bare", send(b"x:a\rb\n")),
        Talk("what is no escape", send(b"x:a\\tb\n")),
        Talk("a backslash at the end", send(b"x:a\\\n")),
        Talk("a bare colon in a value", send(b"x:a:b\n")),
        Talk("lines that end with CR LF", send(b"x:a\n").replace(b"\n", b"\r\n")),
        Talk("spaces around a value", send(b"x: a \n")),
        Talk("an empty value", send(b"x:\n")),
        Talk("an empty name", send(b":a\n")),
        Talk("no colon", send(b"xa\n")),
        Talk("repeated", send(b"x:1\nx:2\n")),
        Talk("UTF-8", send("x:ü€\n".encode())),
        Talk("no UTF-8", send(b"x:\xfc\n")),
    )


HEADERS = [
    *headers_in("1.2"),
    *headers_in("1.1"),
    *headers_in("1.0"),
    Talk("a second destination", send(b"destination:/topic/other\n")),
    Talk("spaces around a name", send(b" x :a\n")),
    Talk("NUL in a header", send(b"x:a\0b\n")),
    Talk("a header of 8000 bytes", send(b"x:" + b"a" * 8000 + b"\n")),
    Talk("a header of 15000 bytes", send(b"x:" + b"a" * 15000 + b"\n")),
    Talk("a header of 17000 bytes", send(b"x:" + b"a" * 17000 + b"\n")),
    Talk("50 headers", send(b"".join(b"x%d:a\n" % number for number in range(50)))),
    Talk("70 headers", send(b"".join(b"x%d:a\n" % number for number in range(70)))),
    Talk("a receipt with an escape", send(b"receipt:a\\cb\n")),
    Talk("an empty receipt", send(b"receipt:\n")),
]
COMMANDS = [
    Talk("an unknown command", frame("HELLO", "receipt:r")),
    Talk("a command in lower case", send().replace(b"SEND", b"send")),
    Talk("a space after the command", send().replace(b"SEND", b"SEND ")),
    Talk("a space before the command", b" " + send()),
    *(
        Talk(f"{command} from a client", frame(command, "receipt-id:1", body="abc"))
        for command in ("MESSAGE", "RECEIPT", "ERROR", "CONNECTED")
    ),
    Talk("CONNECT again", login()),
    Talk("LF between frames", send() + b"\n\n" + send()),
    Talk("CR LF between frames", send() + b"\r\n\r\n" + send()),
    Talk("CR between frames", send() + b"\r" + send()),
    Talk("NUL between frames", send() + b"\0" + send()),
    Talk("no destination", frame("SEND", body="abc")),
    Talk("an empty destination", send(to=b"")),
    Talk("SUBSCRIBE without a destination", frame("SUBSCRIBE", "id:t")),
    *(
        talk
        for version in ("1.2", "1.1", "1.0")
        for talk in check_all(
            version, Talk("SUBSCRIBE without an id", frame("SUBSCRIBE", OTHER, "receipt:r"))
        )
    ),
    *check_all(
        "1.0",
        Talk(
            "UNSUBSCRIBE by destination",
            frame("SUBSCRIBE", OTHER) + frame("UNSUBSCRIBE", OTHER, "receipt:r"),
        ),
        Talk("NACK", frame("NACK", "message-id:1")),
        Talk("ACK without a message-id", frame("ACK")),
    ),
    Talk("SUBSCRIBE with a used id", frame("SUBSCRIBE", "id:s", OTHER)),
    Talk(
        "SUBSCRIBE with an unknown ack", frame("SUBSCRIBE", "id:t", OTHER, "ack:never", "receipt:r")
    ),
    Talk("UNSUBSCRIBE of nothing", frame("UNSUBSCRIBE", "id:t")),
    Talk("UNSUBSCRIBE without an id", frame("UNSUBSCRIBE")),
    Talk("ACK of nothing", frame("ACK", "id:t")),
    Talk("ACK without an id", frame("ACK")),
    Talk("NACK of nothing", frame("NACK", "id:t")),
    *check_all("1.1", Talk("ACK of nothing", frame("ACK", "subscription:s", "message-id:t"))),
    Talk("BEGIN twice", BEGIN + BEGIN),
    Talk("BEGIN without a transaction", frame("BEGIN")),
    Talk("COMMIT of nothing", COMMIT),
    Talk("ABORT of nothing", ABORT),
    Talk("SEND in no transaction", send(b"transaction:t\n")),
    Talk(
        "a transaction that is committed",
        BEGIN + send(b"transaction:t\n", b"in") + send(body=b"out") + COMMIT,
    ),
    Talk(
        "a transaction that is aborted",
        BEGIN + send(b"transaction:t\n", b"in") + send(body=b"out") + ABORT,
    ),
    Talk("a transaction after its end", BEGIN + COMMIT + send(b"transaction:t\n")),
    Talk(
        "a receipt for everything",
        frame("BEGIN", "transaction:t", "receipt:1")
        + send(b"transaction:t\nreceipt:2\n")
        + frame("COMMIT", "transaction:t", "receipt:3")
        + frame("BEGIN", "transaction:t", "receipt:4")
        + frame("ABORT", "transaction:t", "receipt:5")
        + frame("SUBSCRIBE", "id:t", OTHER, "receipt:6")
        + frame("UNSUBSCRIBE", "id:t", "receipt:7"),
    ),
    Talk("DISCONNECT", frame("DISCONNECT")),
    Talk("DISCONNECT with a receipt", frame("DISCONNECT", "receipt:r")),
    Talk(
        "DISCONNECT within a transaction",
        BEGIN + send(b"transaction:t\n") + frame("DISCONNECT", "receipt:r"),
    ),
    Talk("frames after DISCONNECT", frame("DISCONNECT", "receipt:r") + send(b"receipt:q\n")),
]
TALKS = [*LOGINS, *LENGTHS, *HEADERS, *COMMANDS]
# One text if all three do the same. RabbitMQ is 3.10.8, ActiveMQ 5.17.2.
TAKES: dict[str, str | tuple[str, str, str]] = {
    "login: no accept-version": "CONNECTED 1.0",
    "login: all versions": "CONNECTED 1.2",
    "login: two versions": "CONNECTED 1.1",
    "login: the versions in another order": "CONNECTED 1.2",
    "login: an unknown version beside one": "CONNECTED 1.1",
    "login: an unknown version": REFUSED,
    "login: a space before a version": ("CONNECTED 1.2", "CONNECTED 1.1", "CONNECTED 1.1"),
    "login: STOMP in place of CONNECT": "CONNECTED 1.2",
    "login: no host": "CONNECTED 1.2",
    "login: a backslash, which is no escape here": ("CONNECTED 1.2", REFUSED, "CONNECTED 1.2"),
    "login: a colon": "CONNECTED 1.2",
    "login: lines that end with CR LF": "CONNECTED 1.2",
    "login: a second login header": "CONNECTED 1.2",
    "login: line ends before it": "CONNECTED 1.2",
    "login: a NUL before it": (REFUSED, "CONNECTED 1.2", "CONNECTED 1.2"),
    "login: lower case": REFUSED,
    "login: something else first": REFUSED,
    "login: a receipt is wanted": "CONNECTED 1.2",
    "login: a heart-beat that is a word": REFUSED,
    "login: a heart-beat of one number": REFUSED,
    "login: a negative heart-beat": (REFUSED, "CONNECTED 1.2", "CONNECTED 1.2"),
    "login: a length, and no body": "CONNECTED 1.2",
    "login: a body": "CONNECTED 1.2",
    "login: a wrong passcode": REFUSED,
    "length: right": "MESSAGE b'abc'",
    "length: right, with NUL in the body": "MESSAGE b'a\\x00c'",
    "length: none": "MESSAGE b'abc'",
    "length: none, and no body": "MESSAGE b''",
    "length: 0": "MESSAGE b''",
    "length: too small": (REFUSED, REFUSED, "MESSAGE b'ab'"),
    "length: 0 with a body": REFUSED,
    "length: too large": REFUSED,
    "length: far too large": (REFUSED, WAITS, REFUSED),
    "length: negative": (REFUSED, REFUSED, WAITS),
    "length: a word": REFUSED,
    "length: empty": REFUSED,
    "length: a fraction": REFUSED,
    "length: with a sign": (REFUSED, "MESSAGE b'abc'", "MESSAGE b'abc'"),
    "length: with a space": (REFUSED, "MESSAGE b'abc'", "MESSAGE b'abc'"),
    "length: with a zero before it": "MESSAGE b'abc'",
    "length: twice, the first is right": "MESSAGE b'abc'",
    "length: twice, the second is right": (REFUSED, REFUSED, "MESSAGE b'ab'"),
    "length: in capitals": "MESSAGE b'abc' Content-L=2",
    "length '5' of SUBSCRIBE without a body": "RECEIPT r",
    "length '5' of UNSUBSCRIBE without a body": "RECEIPT r",
    "length '5' of BEGIN without a body": "RECEIPT r",
    "length '5' of COMMIT without a body": "RECEIPT r",
    "length '5' of ABORT without a body": "RECEIPT r",
    "length '5' of DISCONNECT without a body": "RECEIPT r",
    "length 'x' of SUBSCRIBE without a body": "RECEIPT r",
    "length 'x' of UNSUBSCRIBE without a body": "RECEIPT r",
    "length 'x' of BEGIN without a body": "RECEIPT r",
    "length 'x' of COMMIT without a body": "RECEIPT r",
    "length 'x' of ABORT without a body": "RECEIPT r",
    "length 'x' of DISCONNECT without a body": "RECEIPT r",
    "length '-1' of SUBSCRIBE without a body": "RECEIPT r",
    "length '-1' of UNSUBSCRIBE without a body": "RECEIPT r",
    "length '-1' of BEGIN without a body": "RECEIPT r",
    "length '-1' of COMMIT without a body": "RECEIPT r",
    "length '-1' of ABORT without a body": "RECEIPT r",
    "length '-1' of DISCONNECT without a body": "RECEIPT r",
    "a body on SUBSCRIBE": "RECEIPT r",
    "a body on BEGIN": "RECEIPT r",
    "a body with NUL on SUBSCRIBE": REFUSED,
    "a body that is no UTF-8": "MESSAGE b'\\xfc\\xff'",
    "1.2: all escapes": "MESSAGE b'abc' x=a:b\\c\nd",
    "1.2: an escape in a name": "MESSAGE b'abc' x:y=a",
    "1.2: a carriage return, escaped": "MESSAGE b'abc' x=a\rb",
    "1.2: a carriage return, bare": (REFUSED, REFUSED, "MESSAGE b'abc' x=a\rb"),
    "1.2: what is no escape": (REFUSED, REFUSED, "MESSAGE b'abc' x=a\\tb"),
    "1.2: a backslash at the end": (REFUSED, REFUSED, "MESSAGE b'abc' x=a\\"),
    "1.2: a bare colon in a value": "MESSAGE b'abc' x=a:b",
    "1.2: lines that end with CR LF": "MESSAGE b'abc' x=a",
    "1.2: spaces around a value": "MESSAGE b'abc' x= a ",
    "1.2: an empty value": "MESSAGE b'abc' x=",
    "1.2: an empty name": (REFUSED, "MESSAGE b'abc' =a", REFUSED),
    "1.2: no colon": (REFUSED, REFUSED, "MESSAGE b'abc' xa="),
    "1.2: repeated": "MESSAGE b'abc' x=1",
    "1.2: UTF-8": "MESSAGE b'abc' x=ü€",
    "1.2: no UTF-8": (REFUSED, "MESSAGE b'abc' x=\ufffd", "MESSAGE b'abc' x=\ufffd"),
    "1.1: all escapes": "MESSAGE b'abc' x=a:b\\c\nd",
    "1.1: an escape in a name": "MESSAGE b'abc' x:y=a",
    "1.1: a carriage return, escaped": (
        "MESSAGE b'abc'",
        "MESSAGE b'abc' x=a\rb",
        "MESSAGE b'abc' x=a\\rb",
    ),
    "1.1: a carriage return, bare": (REFUSED, REFUSED, "MESSAGE b'abc' x=a\rb"),
    "1.1: what is no escape": (REFUSED, REFUSED, "MESSAGE b'abc' x=a\\tb"),
    "1.1: a backslash at the end": (REFUSED, REFUSED, "MESSAGE b'abc' x=a\\"),
    "1.1: a bare colon in a value": "MESSAGE b'abc' x=a:b",
    "1.1: lines that end with CR LF": (
        "MESSAGE b'abc' x=a",
        "MESSAGE b'abc' x=a",
        "MESSAGE b'abc' x=a\r",
    ),
    "1.1: spaces around a value": "MESSAGE b'abc' x= a ",
    "1.1: an empty value": "MESSAGE b'abc' x=",
    "1.1: an empty name": (REFUSED, "MESSAGE b'abc' =a", REFUSED),
    "1.1: no colon": (REFUSED, REFUSED, "MESSAGE b'abc' xa="),
    "1.1: repeated": "MESSAGE b'abc' x=1",
    "1.1: UTF-8": "MESSAGE b'abc' x=ü€",
    "1.1: no UTF-8": (REFUSED, "MESSAGE b'abc' x=\ufffd", "MESSAGE b'abc' x=\ufffd"),
    "1.0: all escapes": (
        "MESSAGE b'abc' x=a\\cb\\\\c\\n",
        "MESSAGE b'abc' x=a\\cb\\\\c\\n",
        "MESSAGE b'abc' d=",
    ),
    "1.0: an escape in a name": "MESSAGE b'abc' x\\cy=a",
    "1.0: a carriage return, escaped": "MESSAGE b'abc' x=a\\rb",
    "1.0: a carriage return, bare": (REFUSED, REFUSED, "MESSAGE b'abc' x=a\rb"),
    "1.0: what is no escape": ("MESSAGE b'abc' x=a\\tb", REFUSED, "MESSAGE b'abc' x=a\\tb"),
    "1.0: a backslash at the end": ("MESSAGE b'abc' x=a\\", REFUSED, "MESSAGE b'abc' x=a\\"),
    "1.0: a bare colon in a value": (
        "MESSAGE b'abc' x=a:b",
        "MESSAGE b'abc' x=a\\cb",
        "MESSAGE b'abc' x=a:b",
    ),
    "1.0: lines that end with CR LF": "MESSAGE b'abc' x=a",
    "1.0: spaces around a value": (
        "MESSAGE b'abc' x= a ",
        "MESSAGE b'abc' x=a ",
        "MESSAGE b'abc' x=a",
    ),
    "1.0: an empty value": "MESSAGE b'abc' x=",
    "1.0: an empty name": (REFUSED, "MESSAGE b'abc' =a", REFUSED),
    "1.0: no colon": (REFUSED, REFUSED, "MESSAGE b'abc' xa="),
    "1.0: repeated": "MESSAGE b'abc' x=1",
    "1.0: UTF-8": "MESSAGE b'abc' x=ü€",
    "1.0: no UTF-8": (REFUSED, "MESSAGE b'abc' x=\ufffd", "MESSAGE b'abc' x=\ufffd"),
    "a second destination": "MESSAGE b'abc'",
    "spaces around a name": "MESSAGE b'abc'  x =a",
    "NUL in a header": "MESSAGE b'abc' x=a\0b",
    "a header of 8000 bytes": "MESSAGE b'abc' x=aaaaaaaaa",
    "a header of 15000 bytes": (
        "MESSAGE b'abc' x=aaaaaaaaa",
        "MESSAGE b'abc' x=aaaaaaaaa",
        REFUSED,
    ),
    "a header of 17000 bytes": (REFUSED, "MESSAGE b'abc' x=aaaaaaaaa", REFUSED),
    "50 headers": "MESSAGE b'abc' x0=a",
    "70 headers": (REFUSED, "MESSAGE b'abc' x0=a", "MESSAGE b'abc' x0=a"),
    "a receipt with an escape": "RECEIPT a:b, MESSAGE b'abc'",
    "an empty receipt": "RECEIPT , MESSAGE b'abc'",
    "an unknown command": REFUSED,
    "a command in lower case": REFUSED,
    "a space after the command": (REFUSED, REFUSED, "MESSAGE b'abc'"),
    "a space before the command": (REFUSED, REFUSED, "MESSAGE b'abc'"),
    "MESSAGE from a client": REFUSED,
    "RECEIPT from a client": REFUSED,
    "ERROR from a client": REFUSED,
    "CONNECTED from a client": REFUSED,
    "CONNECT again": REFUSED,
    "LF between frames": "MESSAGE b'abc', MESSAGE b'abc'",
    "CR LF between frames": (
        "MESSAGE b'abc', MESSAGE b'abc'",
        "MESSAGE b'abc', MESSAGE b'abc'",
        REFUSED,
    ),
    "CR between frames": (
        "MESSAGE b'abc', MESSAGE b'abc'",
        REFUSED,
        "MESSAGE b'abc', MESSAGE b'abc'",
    ),
    "NUL between frames": (
        REFUSED,
        "MESSAGE b'abc', MESSAGE b'abc'",
        "MESSAGE b'abc', MESSAGE b'abc'",
    ),
    "no destination": REFUSED,
    "an empty destination": REFUSED,
    "SUBSCRIBE without a destination": REFUSED,
    "1.2: SUBSCRIBE without an id": (REFUSED, "RECEIPT r", REFUSED),
    "1.1: SUBSCRIBE without an id": (REFUSED, "RECEIPT r", REFUSED),
    "1.0: SUBSCRIBE without an id": "RECEIPT r",
    "1.0: UNSUBSCRIBE by destination": "RECEIPT r",
    "1.0: NACK": REFUSED,
    "1.0: ACK without a message-id": REFUSED,
    "SUBSCRIBE with a used id": (REFUSED, REFUSED, ""),
    "SUBSCRIBE with an unknown ack": (REFUSED, REFUSED, "RECEIPT r"),
    "UNSUBSCRIBE of nothing": REFUSED,
    "UNSUBSCRIBE without an id": REFUSED,
    "ACK of nothing": REFUSED,
    "ACK without an id": REFUSED,
    "NACK of nothing": REFUSED,
    "1.1: ACK of nothing": REFUSED,
    "BEGIN twice": (REFUSED, "", REFUSED),
    "BEGIN without a transaction": REFUSED,
    "COMMIT of nothing": REFUSED,
    "ABORT of nothing": REFUSED,
    "SEND in no transaction": REFUSED,
    "a transaction that is committed": "MESSAGE b'out', MESSAGE b'in'",
    "a transaction that is aborted": "MESSAGE b'out'",
    "a transaction after its end": REFUSED,
    "a receipt for everything": ", ".join(f"RECEIPT {number}" for number in range(1, 8))
    + ", MESSAGE b'abc'",
    "DISCONNECT": "",
    "DISCONNECT with a receipt": "RECEIPT r",
    "DISCONNECT within a transaction": "RECEIPT r",
    "frames after DISCONNECT": "RECEIPT r",
}
"""How the embedded broker, RabbitMQ and ActiveMQ take each: REFUSED, WAITS, or the answers. These
are the receipts and then the messages, with their bodies and the conversation's own first
header."""
