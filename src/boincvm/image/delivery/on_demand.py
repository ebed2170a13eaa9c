"""The root disk of a machine that starts before its image is here: blocks come as it reads them.

Threads read blocks from the server, with what follows them, and check each before it is used. While
the server cannot be reached, the machine goes on with what is here and waits for the rest; a server
that has other blocks than were published, or none any more, ends the machine.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import TypeVar

from boincvm.errors import (
    DISK_FULL,
    BoincvmError,
    HostDiskFullError,
    HostError,
    ImageDamagedError,
    ImageMissingError,
    host_error,
)
from boincvm.hypervisor.preferences import read_preferences
from boincvm.image.delivery.patch import BLOCK
from boincvm.image.delivery.root_part import RootPart
from boincvm.image.delivery.server import (
    PATIENCE,
    BrokenOffError,
    Patience,
    Server,
    UnexpectedAnswerError,
)
from boincvm.image.store import Image, ImageStore
from boincvm.standard_error import write_line

T = TypeVar("T")

_CONNECTIONS = 2
READ_AHEAD = 8
"""Blocks that are read after those which the machine waits for."""
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
"""Seconds between attempts."""
MOST_ON_DISK = 8 << 30
"""Bytes that the blocks of all images may take on the disk, if the preferences say nothing."""
_MOST_FAULTS = 4
"""Wrong answers of the server in a row: somebody may just be publishing there."""
_END_LIMIT = 2.0
"""Seconds for a thread to end. One that waits for a server's host to answer ends later."""


class OnDemandRoot:
    """The `BlockSource` of a partial image."""

    def __init__(
        self,
        directory: Path,
        digest: str,
        *,
        report: Callable[[str], None] = write_line,
        patience: Patience = PATIENCE,
        first_pause: float = _FIRST_PAUSE,
    ) -> None:
        """Open the disk of the image `digest` in `directory`.

        Raises ImageDamagedError, HostError.
        """
        self._name = digest[:12]
        try:
            self._part = RootPart(directory, digest)
        except OSError as error:
            raise host_error(f"the disk of {directory} cannot be opened", error) from error
        self._report = report
        self._patience = patience
        self._first_pause = first_pause
        self._waiting: dict[int, asyncio.Future[None]] = {}
        """Blocks that were asked for."""
        self._queue: SimpleQueue[list[int] | None] = SimpleQueue()
        self._servers: list[Server] = []
        self._threads: list[Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = Event()
        self._failed = asyncio.Event()
        self._failure: Exception | None = None
        self._lock = Lock()
        self._is_away = False
        """Whether the server cannot be reached."""

    @property
    def size(self) -> int:
        return self._part.blocks.size

    def fetch_head(self) -> None:
        """Read what has been lost of the disk's header. Raises BoincvmError."""
        with closing(Server(self._part.url, self._patience)) as server:
            try:
                self._part.fetch_head(server)
            except OSError as error:
                raise _disk_error(error) from error

    async def read(self, offset: int, length: int) -> bytes:
        """Implement `BlockSource.read`. After a failure it waits until it is cancelled."""
        numbers = range(offset // BLOCK, -(-(offset + length) // BLOCK))
        missing = [number for number in numbers if not self._part.has(number)]
        if missing:
            await asyncio.wait(self._ask(missing))
        return self._part.read(offset, length)

    def _ask(self, missing: list[int]) -> list["asyncio.Future[None]"]:
        """Have blocks read, and some that follow them; return what to wait for."""
        self._begin()
        new = [number for number in missing if number not in self._waiting]
        if new:
            end = min(new[-1] + 1 + READ_AHEAD, self._part.blocks.count)
            ahead = range(new[-1] + 1, end)
            new += [n for n in ahead if n not in self._waiting and not self._part.has(n)]
            loop = asyncio.get_running_loop()
            self._waiting.update((number, loop.create_future()) for number in new)
            self._queue.put(new)
        return [self._waiting[number] for number in missing]

    def _begin(self) -> None:
        if self._threads:
            return
        self._loop = asyncio.get_running_loop()
        self._servers = [Server(self._part.url, self._patience) for _ in range(_CONNECTIONS)]
        for server in self._servers:
            thread = Thread(target=self._work, args=[server], name="boincvm-blocks", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _come(self, numbers: list[int]) -> None:
        for number in numbers:
            waiting = self._waiting.pop(number, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
            self._failed.set()

    async def guard(self, work: Coroutine[None, None, T]) -> T:
        """Return the result of `work`; raise the error for which no more blocks come."""
        task = asyncio.ensure_future(work)
        failed = asyncio.ensure_future(self._failed.wait())
        try:
            await asyncio.wait((task, failed), return_when=asyncio.FIRST_COMPLETED)
            has_succeeded = task.done() and not task.cancelled() and task.exception() is None
            if self._failure is not None and not has_succeeded:
                raise self._failure
            return task.result()
        finally:
            for one in (task, failed):
                one.cancel()
            await asyncio.gather(task, failed, return_exceptions=True)

    def close(self) -> None:
        """End the threads. Idempotent."""
        if self._is_closed.is_set():
            return
        self._is_closed.set()
        for server in self._servers:
            self._queue.put(None)
            server.abort()
        for thread in self._threads:
            thread.join(_END_LIMIT)
        if not any(thread.is_alive() for thread in self._threads):
            self._part.close()

    def is_whole(self) -> bool:
        """Tell whether all of the disk is here. Raises OSError."""
        return self._part.is_whole()

    # In the threads.

    def _work(self, server: Server) -> None:
        try:
            while (numbers := self._queue.get()) is not None:
                self._fetch(server, numbers)
        except OSError as error:
            self._call_in_loop(self._fail, _disk_error(error))
        except Exception as error:  # or the machine would wait for ever
            self._call_in_loop(self._fail, error)
        finally:
            server.close()

    def _call_in_loop(self, function: Callable[[T], None], value: T) -> None:
        """Call `function` in the event loop, unless that has ended."""
        if self._loop is not None and not self._is_closed.is_set() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, value)

    def _fetch(self, server: Server, numbers: list[int]) -> None:
        """Read blocks, however long it takes. Raises BoincvmError, OSError."""
        left = set(numbers)
        faults, pause = 0, self._first_pause
        may_be_idle = True
        while left and not self._is_closed.is_set():
            try:
                for come in self._part.fetch(server, left):
                    left.difference_update(come)
                    self._note_here()
                    self._call_in_loop(self._come, come)
                    faults, pause = 0, self._first_pause
            except ImageMissingError as error:
                raise ImageMissingError(
                    f"{server.url} no longer has the rest of image {self._name}",
                    hint="a newer version was published: boincvm image update NAME",
                ) from error
            except (UnexpectedAnswerError, ImageDamagedError) as error:
                faults += not getattr(error, "is_passing", False)
                if faults == _MOST_FAULTS:
                    raise
                self._note_away(error)
            except HostError as error:
                if may_be_idle and isinstance(error, BrokenOffError):
                    may_be_idle = False  # servers close connections that nobody has used for long
                    continue
                self._note_away(error)
            if left:
                self._is_closed.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _note_away(self, error: BoincvmError) -> None:
        with self._lock:
            if not self._is_away and not self._is_closed.is_set():
                self._is_away = True
                self._report(
                    f"boincvm: the machine may have to wait for parts of its disk: {error.message}"
                )

    def _note_here(self) -> None:
        with self._lock:
            if self._is_away:
                self._is_away = False
                self._report("boincvm: parts of the machine's disk can be read again")


def _disk_error(error: OSError) -> BoincvmError:
    if error.errno in DISK_FULL:
        return HostDiskFullError(
            f"the host's disk is full: {os.strerror(error.errno or 0)}",
            hint="free some space and run again; what is here of the image stays",
        )
    return host_error("a part of the image cannot be kept", error)


@contextmanager
def open_on_demand(store: ImageStore, image: Image) -> Iterator[OnDemandRoot]:
    """Open the disk of a partial image for a machine.

    If all of it is here when the machine has ended, the image is partial no more. Blocks of others
    may have to go for it. Raises BoincvmError.
    """
    most = read_preferences().on_demand or MOST_ON_DISK
    root = OnDemandRoot(image.directory, image.digest)
    try:
        _limit_parts(store, most, used=image.root)
        root.fetch_head()
        yield root
        try:
            if root.is_whole():
                store.complete(image)
        except (OSError, ImageDamagedError) as error:  # the job has been done
            write_line(f"boincvm: image {image.name} stays partial: {error}")
    finally:
        root.close()
        _limit_parts(store, most)


def _limit_parts(store: ImageStore, most: int, used: Path | None = None) -> None:
    """Remove the blocks that were not used for longest; those of the file `used` are used now."""
    try:
        if used is not None:
            os.utime(used)
        store.limit_parts(most)
    except OSError as error:  # no run needs that
        write_line(f"boincvm: blocks of images that are read on demand stay: {error}")
