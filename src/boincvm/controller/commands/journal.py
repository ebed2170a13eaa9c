"""Record what happens to commands, for the controller's next start and as events."""

from typing import Protocol

from boincvm.controller.commands.command import Answer, Command, State
from boincvm.controller.events import EventLog

_LONGEST = 80


class Journal(Protocol):
    """A record of what happens to commands; its methods must not block for long."""

    def submitted(self, command: Command) -> None: ...

    def has_output(self, command: Command, answer: Answer, stream: str, offset: int) -> None:
        """Record that there is more output, from `offset` on."""

    def answered(self, command: Command, answer: Answer) -> None:
        """Record that an answer's state has changed."""

    def finished(self, command: Command) -> None: ...

    def forgotten(self, command_id: str) -> None: ...

    def output_forgotten(self, command_id: str) -> None:
        """Record that a command's output was deleted, and nothing else of it."""


class NoJournal:
    """A Journal that records nothing."""

    def submitted(self, command: Command) -> None: ...

    def has_output(self, command: Command, answer: Answer, stream: str, offset: int) -> None: ...

    def answered(self, command: Command, answer: Answer) -> None: ...

    def finished(self, command: Command) -> None: ...

    def forgotten(self, command_id: str) -> None: ...

    def output_forgotten(self, command_id: str) -> None: ...


class EventJournal:
    """A Journal that adds events to `events` and passes everything on to `store`."""

    def __init__(self, events: EventLog, store: Journal) -> None:
        self._events = events
        self._store = store
        self.has_output = store.has_output
        self.answered = store.answered
        self.forgotten = store.forgotten
        self.output_forgotten = store.output_forgotten

    def submitted(self, command: Command) -> None:
        self._store.submitted(command)
        vms = list(command.answers)
        line = " ".join(" ".join(command.request.argv).split())
        line = line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
        where = vms[0] if len(vms) == 1 else f"{len(vms)} machines"
        only = vms[0] if len(vms) == 1 else None
        self._events.add("command_started", only, f"{line!r} on {where}", {"command": command.id})

    def finished(self, command: Command) -> None:
        self._store.finished(command)
        vms = list(command.answers)
        only = vms[0] if len(vms) == 1 else None
        text = _ended(next(iter(command.answers.values()))) if only else _all_ended(command)
        self._events.add("command_ended", only, text, {"command": command.id})


def _ended(answer: Answer) -> str:
    result = answer.result
    if answer.state is not State.ENDED or result is None:
        return f"{answer.state.name.lower()}: {answer.why}"
    if result.error:
        return f"it did not run: {result.error}"
    return f"signal {result.signal}" if result.signal is not None else f"exit code {result.code}"


def _all_ended(command: Command) -> str:
    ends = [answer.state for answer in command.answers.values()]
    return f"{ends.count(State.ENDED)} of {len(ends)} have answered"
