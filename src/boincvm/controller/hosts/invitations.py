"""Hosts that were invited to the embedded broker, each with its own part of the ids.

The host NAME has the ids that begin with `NAME.`: its account may send and receive the messages of
machines with these ids, and no others. Only digests of the passcodes are stored, in a file.
"""

import json
import time
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from boincvm.bus.access import LOGIN, Account, digest_of_passcode, new_passcode
from boincvm.bus.broker import Broker
from boincvm.controller.protocol.envelope import GUEST, GUEST_FRAMES, HOST, is_part_of
from boincvm.controller.protocol.guest import check_id
from boincvm.errors import HostError, UsageError, host_error
from boincvm.host.atomic_files import write_atomically
from boincvm.host.own_files import open_own
from boincvm.json_value import fault_of

MOST = 256
_MOST_BYTES = 1 << 20
_PART = (f"{HOST}{LOGIN}.**", f"{GUEST}{LOGIN}.**")


class Invitation(NamedTuple):
    """The invitation of one host."""

    name: str
    digest: bytes
    """The digest of the passcode."""
    made: float
    """Seconds since 1970."""


class Invitations:
    """The invitations in the file `path`; each has an account of `broker`."""

    def __init__(self, path: Path, broker: Broker) -> None:
        """Raises HostError."""
        self._path = path
        self._broker = broker
        self._known = {invitation.name: invitation for invitation in _read(path)}
        for invitation in self._known.values():
            self._let_in(invitation)

    def all(self) -> list[Invitation]:
        """Return all invitations, sorted by name."""
        return sorted(self._known.values())

    def host_of(self, machine_id: str) -> str | None:
        """Return the invited host to which that id belongs, if any."""
        return next((name for name in self._known if is_part_of(machine_id, name)), None)

    def add(self, name: str, machines: list[str]) -> str:
        """Invite a host and return its passcode, which is not stored.

        `machines`: ids that are taken. Raises UsageError, HostError.
        """
        check_id(f"{check_id(name)}.1")
        if name in self._known:
            raise UsageError(
                f"the host {name} is already invited",
                hint=f"for a new passcode: boincvm invite --revoke {name}, then invite it again",
            )
        for other in (*self._known, *machines):
            if is_part_of(other, name) or (other in self._known and is_part_of(name, other)):
                raise UsageError(
                    f"ids that begin with {name}. are not free: {other} already exists",
                    hint="choose another name for the host",
                )
        if len(self._known) >= MOST:
            raise UsageError(f"{MOST} hosts are already invited", hint="revoke some first")
        passcode = new_passcode()
        made = Invitation(name, digest_of_passcode(passcode), time.time())
        self._write({**self._known, name: made})
        self._let_in(made)
        return passcode

    def remove(self, name: str) -> None:
        """Revoke an invitation and disconnect its host. Raises UsageError, HostError."""
        if name not in self._known:
            raise UsageError(f"no host {name[:64]!r} is invited", hint="boincvm invite lists them")
        self._broker.expel(name)  # even if the disk is full
        self._write(
            {other: invitation for other, invitation in self._known.items() if other != name}
        )

    def _let_in(self, invitation: Invitation) -> None:
        self._broker.accounts.add(
            Account(invitation.name, invitation.digest, _PART, _PART, GUEST_FRAMES)
        )

    def _write(self, known: dict[str, Invitation]) -> None:
        table = {
            invitation.name: {"digest": invitation.digest.hex(), "made": invitation.made}
            for invitation in known.values()
        }
        try:
            write_atomically(self._path, json.dumps(table, indent=1))
            self._path.chmod(0o600)
        except OSError as error:
            raise host_error(
                f"{self._path.name} cannot be written",
                error,
                hint="fix that and repeat the command, or the change is lost at the next start",
            ) from error
        self._known = known


def _read(path: Path) -> Iterator[Invitation]:
    try:
        with BufferedReader(open_own(path)) as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ValueError("it is too large")
        for name, entry in json.loads(data).items():
            digest = bytes.fromhex(entry["digest"])
            if len(digest) != len(digest_of_passcode("")):
                raise ValueError("a digest has the wrong length")
            yield Invitation(check_id(name), digest, float(entry["made"]))
    except FileNotFoundError:
        return
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, UsageError
    ) as error:  # fmt: skip
        raise HostError(
            f"{str(path)!r} is damaged: {fault_of(error)}"[:500],
            hint="restore the file, or remove it and invite all hosts again",
        ) from error
