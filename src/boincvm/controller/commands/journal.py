"""What is written down of commands, so that a controller that is started anew knows them."""

from typing import Protocol

from boincvm.controller.commands.command import Answer, Command


class Journal(Protocol):
    """Is told each thing when it has happened, and must not block for long."""

    def submitted(self, command: Command) -> None: ...

    def has_output(self, command: Command, answer: Answer, stream: str, offset: int) -> None:
        """More of it, from `offset` on."""

    def answered(self, command: Command, answer: Answer) -> None:
        """The answer's state is another one."""

    def finished(self, command: Command) -> None: ...

    def forgotten(self, command_id: str) -> None: ...

    def output_forgotten(self, command_id: str) -> None:
        """And nothing else of it."""


class NoJournal:
    """Nothing is written down."""

    def submitted(self, command: Command) -> None: ...

    def has_output(self, command: Command, answer: Answer, stream: str, offset: int) -> None: ...

    def answered(self, command: Command, answer: Answer) -> None: ...

    def finished(self, command: Command) -> None: ...

    def forgotten(self, command_id: str) -> None: ...

    def output_forgotten(self, command_id: str) -> None: ...
