"""A checkpoint of a running QEMU: its memory is live-migrated to a helper process.

QEMU sends all memory while the guest keeps running, and then, with the guest stopped, what was
written meanwhile. At that moment the root disk gets a new layer, so that the layer before it is the
disk as of then. docs/checkpoints.md compares the ways that QEMU offers.

Under emulation QEMU (7.2 at least) can lose track of writes. When it collects what was written (a
pass, announced by `MIGRATION_PASS`) it fails to have the processor report further writes to these
pages (cpu_physical_memory_sync_dirty_bitmap in include/exec/ram_addr.h): if such a page is sent and
then written, the write is lost. We have seen a third of the checkpoints with stale pages, and
guests that crashed because of it. So the guest is stopped at the first pass, which comes before
anything is sent; and everything that the second one finds must be sent with the guest stopped,
which is so if only the end of the migration follows. If a third pass comes before that end, the
checkpoint is void, and is tried again with more time for the end; for the last try the guest is
stopped from the beginning.

Sources: QEMU's docs/devel/migration.rst and qapi/migration.json.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from qemu.qmp import Message

import boincvm
from boincvm.errors import DISK_FULL, HostDiskFullError, HypervisorError
from boincvm.host.shared_pipes import PipeEnd, StreamHelper
from boincvm.hypervisor.contract import FileSeal
from boincvm.hypervisor.qemu.monitor import LIMIT, Monitor
from boincvm.hypervisor.uninterrupted import uninterrupted

OnStep = Callable[[str], None]
"""Called with the name of each step of a checkpoint as soon as it is done."""
STEPS = (
    "begun",
    "helper ready",
    "guest stopped",
    "disk switched",
    "memory sent",
    "guest runs",
    "memory kept",
)
"""The names of the steps, in their order."""
DOWNTIMES = (20, 60, 200, 1000)
"""Milliseconds that the end may take by QEMU's estimate, for each attempt."""
LIVE_LIMIT = 600.0
"""Seconds that sending the memory may take."""
_CAPABILITIES = ("pause-before-switchover", "events")
_BANDWIDTH = 1 << 40
_LONGEST_LINE = 1 << 20
_STREAM = "memory"
_NOT_YET = "not finalized"
_MOMENT = 0.0005
_OVER = ("completed", "cancelled", "failed", "None")
_RECEIVER = (
    "import sys; sys.path.insert(0, sys.argv[1]);"
    " from boincvm.hypervisor.qemu.memory_receiver import main; sys.exit(main(sys.argv[2:]))"
)


class WrittenMemory(NamedTuple):
    """What the helper process has written."""

    files: dict[str, FileSeal]
    """Those that were written or sealed."""
    chain: tuple[str, ...]
    """The memory files that the newest one needs, itself the last."""
    live: int
    """Bytes of memory that are not zero."""
    written: int
    """Bytes of the newest memory file."""


class Merge(NamedTuple):
    """Disk layers to be merged into the one file `into`."""

    layers: tuple[str, ...]
    into: str


class MemoryReceiver:
    """The helper process that receives the memory (memory_receiver.py)."""

    def __init__(
        self,
        directory: Path,
        memory: str,
        base: str | None,
        seal: Sequence[str],
        merge: Merge | None,
        *,
        idle: bool,
    ) -> None:
        """Start the helper.

        `memory` is the file to write, `base` the one whose pages need not be written again; `seal`
        and `merge` are disk layers that are final once all memory has arrived. With `idle` it
        yields to all other work. Raises OSError.
        """
        request = {
            "directory": str(directory),
            "memory": memory,
            "base": base,
            "idle": idle,
            "seal": list(seal),
            "merge": merge and merge._asdict(),
        }
        package = str(Path(boincvm.__file__).parents[1])

        def command(stream: int, result: int) -> list[str]:
            given = json.dumps({**request, "stream": stream, "result": result})
            return [sys.executable, "-I", "-S", "-c", _RECEIVER, package, given]

        self._helper = StreamHelper(command, directory)
        self.stream = self._helper.stream
        """The end of the stream that QEMU gets."""
        self._reader: asyncio.StreamReader | None = None

    async def ready(self) -> None:
        """Wait until the helper reads the stream. Raises HypervisorError, HostDiskFullError."""
        self._reader = await self._helper.connect(_LONGEST_LINE)
        await self._line()

    async def result(self) -> WrittenMemory:
        """Return what was written, once the stream has ended.

        Raises HypervisorError, HostDiskFullError.
        """
        answer = await self._line()
        files = answer["files"]
        chain = answer["chain"]
        if not isinstance(files, dict) or not isinstance(chain, list):
            raise HypervisorError("the memory's helper process gave no valid answer")
        return WrittenMemory(
            {
                name: FileSeal(int(seal["size"]), str(seal["digest"]))
                for name, seal in files.items()
            },
            tuple(map(str, chain)),
            int(str(answer["live"])),
            int(str(answer["written"])),
        )

    async def _line(self) -> dict[str, object]:
        if self._reader is None:
            raise RuntimeError("it was abandoned")
        line = await self._reader.readline()
        answer = json.loads(line) if line.endswith(b"\n") else {"error": "its helper process ended"}
        if "error" in answer:
            reason = f"the memory could not be saved: {answer['error']}"
            if answer.get("errno") in DISK_FULL:
                raise HostDiskFullError(reason, hint="free some space on the disk")
            raise HypervisorError(reason)
        return dict(answer)

    def close_stream(self) -> None:
        """End the stream, once QEMU has sent all or will send nothing. Idempotent."""
        self.stream.close()

    async def close(self) -> None:
        """Kill the helper, whatever it does."""
        await self._helper.close()


class UntrackedWritesError(Exception):
    """What was sent may be stale."""


class LiveMigration:
    """Sends a machine's memory while its guest runs."""

    def __init__(self, monitor: Monitor, layer: str, new_layer: str, on_step: OnStep) -> None:
        """Prepare to send; `layer` is the block node in use, `new_layer` the one to take over."""
        self._monitor = monitor
        self._on_step = on_step
        self._layer = layer
        self.new_layer = new_layer
        self._stopped_at = 0.0
        self._runs = True
        self._longest = 0.0
        self._is_void = False
        self.has_switched = False

    def pause(self) -> float:
        """Return the longest time in seconds for which the guest was stopped."""
        now = 0.0 if self._runs else monotonic() - self._stopped_at
        return max(self._longest, now)

    async def run(self, stream: PipeEnd, downtime: int | None) -> None:
        """Send all memory to `stream`; the guest is stopped at the end.

        `downtime`: see DOWNTIMES; with None the guest is stopped from the beginning. Raises
        HypervisorError, UntrackedWritesError.
        """
        await self._prepare(stream, downtime)
        with self._monitor.events("MIGRATION", "MIGRATION_PASS", "STOP", "RESUME") as events:
            await self._monitor.execute("stop")
            await self._monitor.execute("migrate", {"uri": f"fd:{_STREAM}"})
            status = ""
            try:
                async with asyncio.timeout(LIVE_LIMIT):
                    while status != "completed":
                        status = await self._handle_event(await events.get(), downtime)
            except TimeoutError:
                raise HypervisorError("QEMU could not send the guest's memory in time") from None
        if self._is_void:  # cancelling would be quicker, but can hang QEMU 7.2
            raise UntrackedWritesError
        self._on_step("memory sent")

    async def _prepare(self, stream: PipeEnd, downtime: int | None) -> None:
        wanted = [{"capability": name, "state": True} for name in _CAPABILITIES]
        await self._monitor.execute("migrate-set-capabilities", {"capabilities": wanted})
        limits: dict[str, object] = {
            "downtime-limit": downtime or max(DOWNTIMES),
            "max-bandwidth": _BANDWIDTH,
        }
        await self._monitor.execute("migrate-set-parameters", limits)
        await self._monitor.send_pipe(stream, _STREAM)

    async def resume(self) -> None:
        """Let the guest run again. Raises HypervisorError."""
        end = monotonic() + LIMIT
        while True:
            try:
                await self._monitor.execute("cont")
            except HypervisorError as error:
                # QEMU reports completion a moment too early, and has no event for the real end.
                if _NOT_YET not in error.message or monotonic() > end:
                    raise
                await asyncio.sleep(_MOMENT)
            else:
                self._note(runs=True)
                return

    async def cancel(self) -> None:
        """Cancel the migration and wait until QEMU sends no more. Raises HypervisorError."""
        with self._monitor.events("MIGRATION") as events:
            await self._monitor.execute("migrate_cancel")
            answer = await self._monitor.execute("query-migrate")
            status = str(answer.get("status")) if isinstance(answer, dict) else ""
            async with asyncio.timeout(LIMIT):
                while status not in _OVER:
                    data = (await events.get())["data"]
                    status = str(data["status"]) if isinstance(data, dict) else ""

    def _note(self, *, runs: bool) -> None:
        if runs and not self._runs:
            self._longest = max(self._longest, monotonic() - self._stopped_at)
        elif self._runs and not runs:
            self._stopped_at = monotonic()
        self._runs = runs

    async def _handle_event(self, event: Message, downtime: int | None) -> str:
        """Do what the event requires; return the migration's status, or "" if it has none."""
        kind, data = event["event"], event.get("data")
        if kind in ("STOP", "RESUME"):
            self._note(runs=kind == "RESUME")
        elif kind == "MIGRATION_PASS" and isinstance(data, dict):
            is_late = downtime is not None and int(data["pass"]) > 2
            self._is_void = self._is_void or (is_late and not self.has_switched)
        elif isinstance(data, dict):
            status = str(data["status"])
            await self._heed_status(status, downtime)
            return status
        return ""

    async def _run_meanwhile(self) -> None:
        try:
            await self._monitor.execute("cont")
        except HypervisorError as error:
            if _NOT_YET not in error.message:
                raise
            # We were so slow that everything has been sent, and the guest is stopped for the end.

    async def _switch(self) -> None:
        change: dict[str, object] = {"node": self._layer, "overlay": self.new_layer}
        await self._monitor.execute("blockdev-snapshot", change)
        self.has_switched = True

    async def _heed_status(self, status: str, downtime: int | None) -> None:
        if status == "active" and downtime is not None:
            await self._run_meanwhile()
        elif status == "pre-switchover":
            self._on_step("guest stopped")
            if not self._is_void:
                await uninterrupted(self._switch())
            self._on_step("disk switched")
            await self._monitor.execute("migrate-continue", {"state": status})
        elif status in ("failed", "cancelled"):
            answer = await self._monitor.execute("query-migrate")
            why = answer.get("error-desc", status) if isinstance(answer, dict) else status
            raise HypervisorError(f"QEMU could not send the guest's memory: {why}")
