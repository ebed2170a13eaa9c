"""A guest in memory that speaks to the host like the agent; its programs are Python functions."""

import asyncio
import errno
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from boincvm.bus.stomp import LINK_VERSION, Frame, Parser, encode
from boincvm.byte_text import decoded


@dataclass(slots=True)
class FakeFile:
    """A file, directory or link of a fake guest."""

    kind: str
    """One of "file", "directory" and "link"."""
    mode: int = 0o644
    data: bytes = b""
    """A file's bytes or a link's target."""


@dataclass(slots=True)
class FakeCall:
    """What a fake program is given; `write` sends output, `stdin` is complete at `stdin_ended`.

    `report` sends a line on its status channel, `use` its usage (seconds, bytes), `change` the last
    bytes of a watched file; `watched` has the paths, by the host's numbers.
    """

    argv: list[bytes]
    environment: dict[bytes, bytes]
    directory: bytes
    send: Callable[[str, dict[str, str], bytes], None]
    stdin: bytearray = field(default_factory=bytearray)
    stdin_ended: asyncio.Event = field(default_factory=asyncio.Event)
    signals: asyncio.Queue[int] = field(default_factory=asyncio.Queue)
    watched: dict[bytes, str] = field(default_factory=dict)

    def write(self, stream: str, data: bytes) -> None:
        self.send(stream, {}, data)

    def report(self, line: str) -> None:
        self.send("status-channel", {}, line.encode() + b"\n")

    def use(self, user_time: float, rss: int) -> None:
        used = {"user-us": str(round(user_time * 1e6)), "system-us": "0"}
        self.send("usage", {**used, "rss-kib": str(rss >> 10)}, b"")

    def change(self, path: bytes, mtime_ns: int, tail: bytes) -> None:
        news = {"watch": self.watched[path], "mtime-ns": str(mtime_ns), "size": str(len(tail))}
        self.send("changed", news, tail)


FakeProgram = Callable[["FakeGuest", FakeCall], Awaitable[int]]
"""Returns the program's exit code; -N means that signal N killed it."""


class FakeGuest(asyncio.Protocol):
    """A guest with `programs` by name and `files` by path beneath the job's directory.

    Tests may change both freely.
    """

    def __init__(self, programs: dict[str, FakeProgram]) -> None:
        self.programs = programs
        self.files: dict[bytes, FakeFile] = {}
        self._parser = Parser()
        self._transport: asyncio.Transport | None = None
        self._calls: dict[str, FakeCall] = {}
        self._puts: dict[str, tuple[bytes, FakeFile]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: list[bytes] | None = None  # output held back while the guest is quiesced
        self._paused: list[bytes] | None = None  # input held back while the machine is paused
        self.attached_with: dict[str, str] = {}
        """The headers of the last `attach`: what the host gave it when it resumed."""
        self.on_power_off: Callable[[], None] = self.close

    @property
    def is_quiet(self) -> bool:
        """True between `quiesce` and `attach`, when the guest outlives its link."""
        return self._held is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport
        if self.is_quiet:
            return
        wanted = {"accept-version": "1.2", "heart-beat": "5000,0", "link-version": LINK_VERSION}
        self.send_raw(encode("CONNECT", wanted))
        self.send_raw(encode("SUBSCRIBE", {"id": "0", "destination": "/guest"}))

    def data_received(self, data: bytes) -> None:
        for frame in self._parser.feed(data):
            if frame.command == "MESSAGE":
                self._handle(frame.headers["message"], frame.headers["call"], frame)

    def send_raw(self, data: bytes) -> None:
        """Send arbitrary bytes, to test how the host handles them."""
        if self._held is not None:
            self._held.append(data)
        elif self._paused is not None:
            self._paused.append(data)
        elif self._transport is not None:
            self._transport.write(data)

    def send(self, kind: str, call: str, headers: dict[str, str], body: bytes = b"") -> None:
        """Send one message to the host."""
        head = {"destination": "/host", "message": kind, "call": call, **headers}
        self.send_raw(encode("SEND", head, body))

    def pause(self) -> None:
        """Pause the machine: nothing comes in or goes out. (Its functions keep running.)"""
        if self._paused is None:
            self._paused = []
            if self._transport is not None:
                self._transport.pause_reading()

    def resume(self) -> None:
        """Undo `pause`."""
        paused, self._paused = self._paused, None
        if paused is not None and self._transport is not None:
            self._transport.write(b"".join(paused))
            self._transport.resume_reading()

    def hang_up(self) -> None:
        """Drop the link, as when the machine is saved with all that runs in it."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def close(self) -> None:
        """End the guest: its programs end and its link hangs up."""
        for task in self._tasks:
            task.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _handle(self, kind: str, call: str, frame: Frame) -> None:
        if kind == "run":
            self._run(call, frame)
        elif kind == "put":
            self._puts[call] = (frame.body, FakeFile("file"))
        elif kind == "get":
            self._give(call, frame.body)
        elif kind == "power-off":
            self.on_power_off()
        elif kind == "quiesce":
            self.send("quiesced", "0", {})
            self._held = []
        elif kind == "attach":
            self.attached_with = dict(frame.headers)
            self._go_on()
        elif call in self._puts:
            self._receive_put(kind, call, frame)
        elif call in self._calls:
            self._reply(kind, self._calls[call], call, frame)

    def _go_on(self) -> None:
        held, self._held = self._held or [], None
        self.send("attached", "0", {"calls": " ".join(self._calls)})
        self.send_raw(b"".join(held))

    # Programs.

    def _run(self, call: str, frame: Frame) -> None:
        directory, *arguments = frame.body.split(b"\0")
        count = int(frame.headers["arguments"])
        pairs = dict(pair.split(b"=", 1) for pair in arguments[count:])
        program = self.programs.get(decoded(arguments[0]))
        if program is None:
            sent = (
                self.files.get(arguments[0].removeprefix(b"./")) if b"/" in arguments[0] else None
            )
            is_script = sent is not None and sent.data.startswith(b"#!")
            where = {"at": "interpreter"} if is_script else {}
            self.send("failed", call, {"reason": str(errno.ENOENT), **where})
            return
        fake_call = FakeCall(
            arguments[:count],
            pairs,
            directory,
            lambda kind, headers, data: self.send(kind, call, headers, data),
        )
        self._calls[call] = fake_call
        task = asyncio.ensure_future(self._finish(program, call, fake_call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(self, program: FakeProgram, call: str, fake_call: FakeCall) -> None:
        code = await program(self, fake_call)
        del self._calls[call]
        end = {"signal": str(-code)} if code < 0 else {"code": str(code)}
        usage = {"user-us": "0", "system-us": "0", "max-rss-kib": "0"}
        self.send("exit", call, {**end, **usage, "oom-kills": "0", "disk-free": str(1 << 33)})

    def _reply(self, kind: str, fake_call: FakeCall, call: str, frame: Frame) -> None:
        if kind == "stdin":
            fake_call.stdin += frame.body
            if frame.body:
                self.send("taken", call, {"bytes": str(len(frame.body))})
            if "ends" in frame.headers:
                fake_call.stdin_ended.set()
        elif kind == "signal":
            fake_call.signals.put_nowait(int(frame.headers["signal"]))
        elif kind == "watch":
            fake_call.watched[frame.body] = frame.headers["watch"]

    # Files.

    def _receive_put(self, kind: str, call: str, frame: Frame) -> None:
        destination, file = self._puts[call]
        if kind == "entry":
            path, _, target = frame.body.partition(b"\0")
            headers = frame.headers
            file = FakeFile(headers["kind"], int(headers["mode"], 8), target)
            if file.kind == "file":
                file.data = bytes(int(headers["size"]))
            root = destination.split(b"\0")[0]
            self.files[root + b"/" + path if path else root] = file
            self._puts[call] = (root + b"\0", file)
        elif kind == "data":
            offset = int(frame.headers["offset"])
            file.data = file.data[:offset] + frame.body + file.data[offset + len(frame.body) :]
        elif kind == "end":
            del self._puts[call]
            self.send("done", call, {})

    def _give(self, call: str, path: bytes) -> None:
        if path not in self.files:
            self.send("failed", call, {"reason": str(errno.ENOENT)}, b"no such file or directory")
            return
        for name in sorted(self.files):
            if name != path and not name.startswith(path + b"/"):
                continue
            file = self.files[name]
            content = file.data if file.kind == "file" else b""
            target = file.data if file.kind == "link" else b""
            headers = {"kind": file.kind, "mode": f"{file.mode:o}", "size": str(len(content))}
            self.send("entry", call, headers, name[len(path) + 1 :] + b"\0" + target)
            for offset in range(0, len(content), 1 << 17):
                data = content[offset : offset + (1 << 17)]
                self.send("data", call, {"offset": str(offset)}, data)
        self.send("done", call, {})
