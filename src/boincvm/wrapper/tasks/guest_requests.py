"""Handles what a guest's program requests of the BOINC client on its status channel."""

import asyncio
import errno
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path, PurePosixPath
from typing import Protocol

from boincvm.boinc import InitData
from boincvm.errors import OutputFileError
from boincvm.guestlink import status_channel
from boincvm.guestlink.get import get_tree
from boincvm.guestlink.guest_paths import WORK
from boincvm.guestlink.put import put_tree
from boincvm.machine.guest_commands import run_in_guest
from boincvm.machine.session import Session
from boincvm.wrapper.log import log
from boincvm.wrapper.task_errors import TemporaryExitError

MOST_WAITING = 100
"""Pending requests for files that a guest may have; more are dropped, and that is logged."""
LARGEST_TRICKLE = 64 << 10
"""Largest size of a trickle-up message, in bytes."""
_PART = PurePosixPath(".boincvm-part")
"""A file that is being copied into the guest. BOINC's library reads each whose name contains
"trickle_down"."""


class Messenger(Protocol):
    """The part of the BOINC client that a guest's program may use."""

    slot: Path
    init_data: InitData

    @property
    def is_standalone(self) -> bool: ...

    def resolve(self, name: str) -> Path: ...

    def send_trickle_up(self, variety: str, text: str | bytes) -> None: ...

    def trickle_downs(self) -> list[Path]: ...

    def request_upload(self, name: str) -> None: ...

    def upload_status(self, name: str) -> int | None: ...


Request = Callable[[Session], Coroutine[None, None, None]]


class GuestRequests:
    """Carries out the requests of one task's program; files are fetched one at a time."""

    def __init__(
        self,
        client: Messenger,
        directory: Path,
        outputs: frozenset[PurePosixPath],
        want_checkpoint: Callable[[], None],
    ) -> None:
        """Set what the program may use.

        `directory`: ours, for files in transit. `outputs`: the only files that the guest
        may have uploaded, by their logical names. `want_checkpoint` is called when the program
        wants its machine saved.
        """
        self._outputs = outputs
        self._want_checkpoint = want_checkpoint
        self._client = client
        self._directory = directory
        self._waiting: deque[Request] = deque()
        self._news = asyncio.Event()
        self._uploads: set[str] = set()
        self.fraction_done: float | None = None
        """From 0 to 1; None if the program has not reported it."""
        self.operations: tuple[float, float] | None = None
        """Floating-point and integer operations that the program reports to have done."""
        self.finish_message = ""
        self.temporary_exit: TemporaryExitError | None = None

    def handle(self, status_message: status_channel.StatusMessage) -> None:
        """Handle one message from the program, without waiting for anything."""
        match status_message:
            case status_channel.FractionDone(fraction):
                self.fraction_done = min(fraction, 1.0)
            case status_channel.CheckpointWanted():
                self._want_checkpoint()
            case status_channel.Operations(floating, integer):
                self.operations = (floating, integer)
            case status_channel.TemporaryExit(seconds, notice, reason):
                self.temporary_exit = TemporaryExitError(seconds, reason, notice=notice)
            case status_channel.Finish(_, _, message):
                self.finish_message = message
            case status_channel.TrickleUp(variety, path):
                self._queue(lambda session: self._send_trickle(session, variety, path))
            case status_channel.Upload(name):
                self._queue(lambda session: self._upload(session, name))

    def _queue(self, request: Request) -> None:
        if len(self._waiting) >= MOST_WAITING:
            log(f"the program asks for more than {MOST_WAITING} files at once: one was dropped")
            return
        self._waiting.append(request)
        self._news.set()

    def notify(self) -> None:
        """Tell the guest about new trickle-downs and finished uploads."""
        self._queue(self._deliver)

    async def serve(self, session: Session) -> None:
        """Carry out requests, one after the other, until cancelled."""
        while True:
            await self._news.wait()
            await self.finish(session)

    async def finish(self, session: Session) -> None:
        """Carry out the requests made so far."""
        self._news.clear()
        while self._waiting:
            try:
                await self._waiting[0](session)
            except (OutputFileError, ValueError, OSError) as error:
                log(f"a request of the program failed: {error}")
            self._waiting.popleft()

    async def _send_trickle(self, session: Session, variety: str, path: str) -> None:
        content = self._directory / "trickle"
        try:
            await get_tree(
                session.link,
                session.transfer_disk,
                beneath_work(path),
                PurePosixPath(content.name),
                directory=self._directory,
                maximum_bytes=LARGEST_TRICKLE,
            )
            text = content.read_bytes()
        finally:
            content.unlink(missing_ok=True)
        self._client.send_trickle_up(variety, text)

    async def _upload(self, session: Session, name: str) -> None:
        if PurePosixPath(name) not in self._outputs:
            raise ValueError(f"{name} is not a <copy_file_from_VM> of the task")
        target = self._client.resolve(name)
        await get_tree(
            session.link,
            session.transfer_disk,
            beneath_work(name),
            PurePosixPath(target.name),
            directory=target.parent,
            maximum_bytes=1 << 40,
        )
        self._uploads.add(name)
        self._client.request_upload(name)

    async def _deliver(self, session: Session) -> None:
        for name in tuple(self._uploads):
            if self._client.upload_status(name) is not None:
                await self._put(session, self._client.slot / f"boinc_ufs_{name}")
                self._uploads.remove(name)
        for path in self._client.trickle_downs():
            await self._put(session, path)
            path.unlink()

    async def _put(self, session: Session, path: Path) -> None:
        """Copy a file of the slot into the guest, in place of an older one.

        It appears there when it is complete: a program that waits for it reads it at once.
        """
        await run_in_guest(session, ["rm", "-f", "--", str(_PART)])  # of an attempt that failed
        await put_tree(
            session.link,
            session.transfer_disk,
            Path(path.name),
            _PART,
            directory=path.parent,
        )
        complaint = await run_in_guest(session, ["mv", "-f", "--", str(_PART), path.name])
        if complaint is not None:
            raise OSError(errno.EIO, complaint)


def beneath_work(path: str) -> PurePosixPath:
    """Return `path` relative to the job's directory in the guest, as the guest link needs it.

    Raises ValueError if it lies elsewhere.
    """
    inner = PurePosixPath(path)
    return inner.relative_to(WORK) if inner.is_absolute() else inner
