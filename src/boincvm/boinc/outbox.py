"""What waits to be said to the client: a channel takes one message at a time."""

from boincvm.boinc.channels import APP_STATUS, GRAPHICS_REPLY, TRICKLE_UP, Channel


class Outbox:
    """Without memory (standalone, or closed) everything is dropped."""

    def __init__(self, memory: memoryview | None) -> None:
        self.status: str | None = None
        self.graphics: dict[str, str] = {}
        """By kind: of each kind the last one counts."""
        self._flags: list[str] = []
        self._flags_sent: list[str] = []
        self._channels: dict[int, Channel] = {}
        if memory is not None:
            numbers = (APP_STATUS, TRICKLE_UP, GRAPHICS_REPLY)
            self._channels = {number: Channel(memory, number) for number in numbers}

    @property
    def is_status_taken(self) -> bool:
        """Whether the client has taken the last status, or there is nobody to take it."""
        if not self._channels:
            return True
        return self.status is None and not self._channels[APP_STATUS].is_full

    def flag(self, word: str) -> None:
        """`word` is to go out on the trickle channel."""
        if word not in self._flags:
            self._flags.append(word)

    def send(self) -> tuple[int, ...]:
        """Sends what can go; the numbers of the channels for which more waits."""
        if not self._channels:
            self._drop()
            return ()
        if self.status is not None and self._channels[APP_STATUS].send(self.status):
            self.status = None
        if self._flags and self._channels[TRICKLE_UP].send(_lines(self._flags)):
            self._flags, self._flags_sent = [], self._flags
        for kind, text in self.graphics.items():
            if self._channels[GRAPHICS_REPLY].send(text):
                del self.graphics[kind]
                break
        waits = {APP_STATUS: self.status, TRICKLE_UP: self._flags, GRAPHICS_REPLY: self.graphics}
        return tuple(number for number, waiting in waits.items() if waiting)

    def send_last(self) -> None:
        """Before the process ends: after that the client looks at the channels once more.

        What it has not taken by then gives way to what is newer.
        """
        if not self._channels:
            return
        if self.status is not None:
            self._channels[APP_STATUS].overwrite(self.status)
            self.status = None
        if self._flags:
            unread = self._flags_sent if self._channels[TRICKLE_UP].is_full else []
            self._channels[TRICKLE_UP].overwrite(_lines([*self._flags, *unread]))
            self._flags = []
        self.send()

    def close(self) -> None:
        """The memory is about to go."""
        self._channels = {}
        self._drop()

    def _drop(self) -> None:
        self.status = None
        self._flags = []
        self.graphics = {}


def _lines(flags: list[str]) -> str:
    return "".join(f"{flag}\n" for flag in flags)
