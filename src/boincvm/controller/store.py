"""Store on disk (SQLite) what the controller knows: events, guests, commands and their answers.

Everything is written as it happens and synced now and then: a killed controller loses nothing, a
power cut loses the last moments. While the disk is full, nothing is stored. SCHEMA is the version
of the format.
"""

import asyncio
import json
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from boincvm.controller.commands.command import Answer, Command, State
from boincvm.controller.events import MOST_EVENTS, Event
from boincvm.controller.protocol.guest import Guest, check_guest
from boincvm.controller.protocol.program import Request, Result
from boincvm.errors import GuestProtocolError, HostDiskFullError, HostError
from boincvm.host.files import free_space, has_free_entries
from boincvm.host.own_files import open_own
from boincvm.json_value import fault_of

_LOG = logging.getLogger("boincvm.controller")
SCHEMA = 1
_LEAST_ROOM = 1 << 16
"""Bytes of free space on the disk without which SQLite cannot begin."""
_NONSENSE = (GuestProtocolError, KeyError, ValueError, TypeError, AttributeError, RecursionError)
_TABLES = """
CREATE TABLE events (number INTEGER PRIMARY KEY, at REAL, kind TEXT, vm TEXT, text TEXT, more TEXT);
CREATE TABLE guests (id TEXT PRIMARY KEY, told TEXT);
CREATE TABLE commands (
    place INTEGER PRIMARY KEY, id TEXT UNIQUE, request TEXT, stdin BLOB, wanted INTEGER,
    submitted_at REAL, ends_at REAL, is_finished INTEGER);
CREATE TABLE answers (
    command TEXT, guest TEXT, instance TEXT, state TEXT, why TEXT, result TEXT,
    PRIMARY KEY (command, guest)) WITHOUT ROWID;
CREATE TABLE outputs (
    command TEXT, guest TEXT, stream TEXT, at INTEGER, data BLOB,
    PRIMARY KEY (command, guest, stream, at)) WITHOUT ROWID;
"""


class Store:
    """The controller's database, which is also the Journal of commands.

    Whatever is written in one turn of the event loop is one transaction.
    """

    def __init__(self, path: Path) -> None:
        """Raises HostError, HostDiskFullError."""
        self._path = path
        with self._translated_errors("cannot be used"):
            if path.exists():
                open_own(path).close()
            self._base = sqlite3.connect(path, isolation_level=None)
        try:
            with self._translated_errors("cannot be used"):
                self._prepare()
        except BaseException:
            self._base.close()
            raise
        self._is_open = False
        self._has_failed = False

    def _prepare(self) -> None:
        # Checked first, so that the file of another boincvm version stays unchanged.
        (version,) = self._base.execute("PRAGMA user_version").fetchone()
        if version not in (0, SCHEMA):
            raise HostError(
                f"{self._path} was written by another version of boincvm (schema {version}, this"
                f" one knows {SCHEMA})",
                hint="use that version, or move the file away",
            )
        self._base.execute("PRAGMA journal_mode=WAL")
        self._base.execute("PRAGMA synchronous=NORMAL")
        if version == 0:
            self._base.executescript(f"BEGIN;{_TABLES}PRAGMA user_version={SCHEMA};COMMIT;")

    @contextmanager
    def _translated_errors(self, trouble: str) -> Iterator[None]:
        """Raise HostError or, if the disk is full, HostDiskFullError in place of other errors."""
        try:
            yield
        except (sqlite3.Error, OSError, *_NONSENSE) as error:
            if isinstance(error, sqlite3.Error) and self._is_disk_full(error):
                raise HostDiskFullError(
                    f"{self._path} {trouble}: the disk is full", hint="free some space on it"
                ) from error
            raise HostError(
                f"{self._path} {trouble}: {fault_of(error)}"[:500],
                hint="if it is damaged, move the file away; what it records of commands is then"
                " lost",
            ) from error

    def _is_disk_full(self, error: sqlite3.Error) -> bool:
        """Tell whether the disk is full, which SQLite also reports as other errors."""
        primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if primary not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
            return primary == sqlite3.SQLITE_FULL
        disk = self._path.parent
        return free_space(disk) < _LEAST_ROOM or not has_free_entries(disk)

    def _do(self, statement: str, values: tuple[object, ...]) -> None:
        try:
            if not self._is_open:
                self._base.execute("BEGIN")
                self._is_open = True
                asyncio.get_running_loop().call_soon(self.commit)
            self._base.execute(statement, values)
        except sqlite3.DatabaseError as error:
            self._fail(error)

    def commit(self) -> None:
        """Commit the open transaction, if any."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            self._base.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            self._fail(error)
        else:
            if self._has_failed:
                self._has_failed = False
                _LOG.warning("events are kept on disk again")

    def _fail(self, error: sqlite3.DatabaseError) -> None:
        """Roll back and log an error of the disk; machines and commands go on without it."""
        self._is_open = False
        if self._base.in_transaction:
            with suppress(sqlite3.DatabaseError):  # `error` already tells what is wrong
                self._base.execute("ROLLBACK")
        if not self._has_failed:
            self._has_failed = True
            _LOG.error("events cannot be kept on disk for now: %s", error)

    def close(self) -> None:
        """Commit and close the database; calling this again is harmless."""
        self.commit()
        self._base.close()

    # Events.

    def add_event(self, event: Event) -> None:
        more = json.dumps(dict(event.more))
        row = (event.number, event.at, event.kind, event.vm, event.text, more)
        self._do("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", row)
        if event.number % 1000 == 0:
            self._do("DELETE FROM events WHERE number <= ?", (event.number - MOST_EVENTS,))

    def events(self) -> list[Event]:
        """Return the last events, oldest first. Raises HostError."""
        statement = "SELECT * FROM events ORDER BY number DESC LIMIT ?"
        with self._translated_errors("is damaged"):
            rows = self._base.execute(statement, (MOST_EVENTS,))
            found = [
                Event(number, at, kind, vm, text, dict(json.loads(more).items()))
                for number, at, kind, vm, text, more in rows
            ]
        return found[::-1]

    # Guests.

    def add_guest(self, guest: Guest) -> None:
        description = json.dumps({**guest._asdict(), "capabilities": sorted(guest.capabilities)})
        self._do("INSERT OR REPLACE INTO guests VALUES (?, ?)", (guest.id, description))

    def remove_guest(self, guest_id: str) -> None:
        self._do("DELETE FROM guests WHERE id = ?", (guest_id,))

    def guests(self) -> list[Guest]:
        """Return the guests that had not left. Raises HostError."""
        found = []
        with self._translated_errors("is damaged"):
            for (description,) in self._base.execute("SELECT told FROM guests"):
                table = json.loads(description)
                guest = Guest(**{**table, "capabilities": frozenset(table["capabilities"])})
                check_guest(guest)
                found.append(guest)
        return found

    # Commands: the methods of a Journal.

    def submitted(self, command: Command) -> None:
        table = command.request._asdict()
        stdin = table.pop("stdin")
        row = (command.id, json.dumps(table), stdin, command.wanted)
        times = (command.submitted_at, command.ends_at)
        self._do("INSERT INTO commands VALUES (NULL, ?, ?, ?, ?, ?, ?, 0)", (*row, *times))
        for answer in command.answers.values():
            self.answered(command, answer)

    def answered(self, command: Command, answer: Answer) -> None:
        result = json.dumps(answer.result._asdict()) if answer.result else None
        description = (answer.instance, answer.state.name, answer.why, result)
        row = (command.id, answer.guest_id, *description)
        self._do("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?)", row)

    def has_output(self, command: Command, answer: Answer, stream: str, offset: int) -> None:
        log = answer.outputs[stream]
        key = (command.id, answer.guest_id, stream)
        begin, data = log.read(offset, log.end)
        self._do("INSERT OR REPLACE INTO outputs VALUES (?, ?, ?, ?, ?)", (*key, begin, data))
        self._do(
            "DELETE FROM outputs WHERE command = ? AND guest = ? AND stream = ?"
            " AND at + length(data) <= ?",
            (*key, log.first),
        )

    def finished(self, command: Command) -> None:
        self._do("UPDATE commands SET is_finished = 1 WHERE id = ?", (command.id,))

    def forgotten(self, command_id: str) -> None:
        self._do("DELETE FROM commands WHERE id = ?", (command_id,))
        self._do("DELETE FROM answers WHERE command = ?", (command_id,))
        self.output_forgotten(command_id)

    def output_forgotten(self, command_id: str) -> None:
        self._do("DELETE FROM outputs WHERE command = ?", (command_id,))

    def commands(self) -> list[Command]:
        """Return all commands, oldest first; none of them takes more input. Raises HostError."""
        with self._translated_errors("is damaged"):
            rows = self._base.execute(
                "SELECT id, request, stdin, wanted, submitted_at, ends_at, is_finished"
                " FROM commands ORDER BY place"
            )
            return [self._command(row) for row in rows.fetchall()]

    def _command(self, row: tuple[object, ...]) -> Command:
        command_id, request, stdin, wanted, submitted_at, ends_at, is_finished = row
        table = json.loads(str(request))
        asked = Request(**{**table, "argv": tuple(table["argv"]), "stdin": stdin})
        command = Command(str(command_id), asked, int(str(wanted)))
        command.submitted_at = float(str(submitted_at))
        command.ends_at = None if ends_at is None else float(str(ends_at))
        command.finished_at = 0.0 if is_finished else None
        found = self._base.execute(
            "SELECT guest, instance, state, why, result FROM answers WHERE command = ?",
            (command_id,),
        )
        for guest, instance, state, why, result in found.fetchall():
            answer = command.answers[guest] = Answer(guest, instance)
            answer.state, answer.why = State[state], why
            answer.result = Result(**json.loads(result)) if result else None
            self._load_outputs(command, answer)
        return command

    def _load_outputs(self, command: Command, answer: Answer) -> None:
        rows = self._base.execute(
            "SELECT stream, at, data FROM outputs WHERE command = ? AND guest = ?"
            " ORDER BY stream, at",
            (command.id, answer.guest_id),
        )
        for stream, at, data in rows:
            log = answer.outputs[stream]
            if at > log.end:
                log.skip(at)
            log.append(data)
