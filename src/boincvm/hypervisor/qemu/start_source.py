"""What a QEMU machine starts from: a boot, a checkpoint, or a golden snapshot."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from boincvm.errors import HypervisorError
from boincvm.host.channels import capacity, widen
from boincvm.host.files import open_descriptor, read_at, read_regular
from boincvm.host.shared_pipes import SharedPipe
from boincvm.host.virtualization import HAS_MEMORY_FILES
from boincvm.hypervisor.disks import disk_failure, free_layer, layer_name
from boincvm.hypervisor.machine_spec import MachineSpec
from boincvm.hypervisor.qemu.launch import Launch, Memory
from boincvm.hypervisor.qemu.process import make_files, make_transfer_disk

if TYPE_CHECKING:
    from boincvm.hypervisor.contract import Checkpoint
    from boincvm.hypervisor.qemu.memory_file import MemoryImage
    from boincvm.hypervisor.qemu.monitor import (
        Monitor,
    )  # with asyncio it takes longer than QEMU's start

FIRST_LAYER = layer_name(0)
GOLDEN_MEMORY, GOLDEN_STATE = "memory", "state"
_MEMORY_NAME = "boincvm-guest-memory"
_STREAM = "memory"
_LARGEST_STATE = 1 << 16
"""Bytes of a golden snapshot's description."""
_LARGEST_PIPE = 1 << 20
"""Bytes; any user may make one of that size."""
LOAD_LIMIT = 900.0
"""Seconds that reading a machine's memory from a slow disk may take."""


def next_layer(layer: str) -> str:
    """Return a name for the next layer after `layer`."""
    return layer_name(int(Path(layer).stem.removeprefix("disk-")) + 1)


class StartSource(Protocol):
    """What one start of a machine begins from.

    All methods may raise HypervisorError, HostDiskFullError.
    """

    def prepare(self, spec: MachineSpec) -> Launch:
        """Make the files that the process needs in its directory, and return its launch."""

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The descriptors that the process must inherit."""

    async def load(self, monitor: Monitor) -> None:
        """Load the state, and return when the guest runs, as far as can be told, or is stopped."""

    def close(self) -> None:
        """Close what the process no longer needs from us. Idempotent."""


class Boot:
    """A boot from the kernel; with `golden` the memory is a file, for copies of it."""

    descriptors: tuple[int, ...] = ()

    def __init__(self, *, golden: bool = False) -> None:
        self._golden = golden

    def prepare(self, spec: MachineSpec) -> Launch:
        if spec.layers:
            from boincvm.hypervisor.saved_state import QCOW2_LAYER, check_layers  # imports `re`

            check_layers(spec.layers, QCOW2_LAYER)
            make_transfer_disk(spec)
            return Launch(spec.layers)
        make_files(spec, FIRST_LAYER, spec.root)
        if self._golden:
            return Launch((FIRST_LAYER,), Memory.SHARED, str(spec.directory / GOLDEN_MEMORY))
        return Launch((FIRST_LAYER,))

    async def load(self, monitor: Monitor) -> None:
        """Do nothing: there is no state to load."""

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


class _Loaded:
    """A start whose memory is read from files of a checkpoint, and given to QEMU as a stream."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        from boincvm.hypervisor.qemu.saved import read_saved_state

        self._files = checkpoint.files
        self._state = read_saved_state(checkpoint)
        self._directory, self._size = Path(), 0
        self._pipe = SharedPipe()

    @property
    def descriptors(self) -> tuple[int, ...]:
        number = self._pipe.reader.inherited
        return () if number is None else (number,)

    def _prepare_load(self, directory: Path, memory: int) -> None:
        """Check the files in `directory` of a machine with `memory` bytes."""
        self._directory, self._size = directory, memory
        self._memory_image()

    def _launch(self, layers: tuple[str, ...]) -> Launch:
        return Launch(
            layers,
            incoming="defer",
            machine=self._state.machine_type,
            cpu=self._state.cpu,
            has_hpet=self._state.has_hpet,
            stands_still=True,
        )

    def _memory_image(self) -> MemoryImage:
        from boincvm.hypervisor.qemu.memory_file import MemoryFileError, MemoryImage
        from boincvm.hypervisor.qemu.stream import with_machine_type
        from boincvm.hypervisor.saved_state import check_sealed

        try:
            image = MemoryImage.read(self._directory, self._state.memory, self._size)
        except (MemoryFileError, OSError) as error:
            raise HypervisorError(f"the saved memory cannot be loaded: {error}") from error
        check_sealed(image.chain, self._files)
        # Copies of golden snapshots once began without it, and so did what they saved.
        head = with_machine_type(
            image.frame.head,
            self._state.machine_type,
            has_page_size=self._state.target.has_page_size,
        )
        image.frame = image.frame._replace(head=head)
        return image

    async def load(self, monitor: Monitor) -> None:
        import asyncio

        from boincvm.hypervisor.qemu.memory_file import BUFFER, MemoryFileError

        reader, writer = self._pipe.reader, self._pipe.writer

        def feed() -> None:
            try:
                with writer.open_to_write(BUFFER) as target:
                    self._memory_image().write_to(target)
            finally:
                writer.close()

        wanted = [{"capability": "events", "state": True}]
        await monitor.execute("migrate-set-capabilities", {"capabilities": wanted})
        with monitor.events("MIGRATION") as events:
            try:
                async with asyncio.timeout(LOAD_LIMIT):
                    name: int | str | None = reader.inherited
                    if name is None:
                        name = _STREAM
                        await monitor.send_pipe(reader, name)
                    await monitor.execute("migrate-incoming", {"uri": f"fd:{name}"})
                    # Only QEMU has it now, so the writer notices if QEMU ends.
                    reader.close()
                    await asyncio.to_thread(feed)
                    while (await events.get())["data"] != {"status": "completed"}:
                        pass  # it is set up, and active
            except (MemoryFileError, OSError) as error:
                raise HypervisorError(f"the saved memory cannot be loaded: {error}") from error
            except TimeoutError:
                raise HypervisorError(f"it was not loaded within {LOAD_LIMIT:g} s") from None

    def close(self) -> None:
        self._pipe.close()


class Restored(_Loaded):
    """A start from a checkpoint, whose files are in the machine's directory."""

    def prepare(self, spec: MachineSpec) -> Launch:
        layers, new = self._state.layers, free_layer(spec.directory)
        self._prepare_load(spec.directory, spec.memory)
        make_files(spec, new, spec.directory / layers[-1])
        return self._launch((*layers, new))


class LoadedCopy(_Loaded):
    """A start from a golden snapshot where QEMU cannot map memory from a file: on Windows.

    The snapshot is a checkpoint (`save_golden`); each copy reads all of its memory.
    """

    def __init__(self, golden: Path) -> None:
        self._golden = golden
        super().__init__(_read_golden(golden))

    def prepare(self, spec: MachineSpec) -> Launch:
        self._prepare_load(self._golden, spec.memory)
        below, new = self._golden / FIRST_LAYER, layer_name(1)
        if not spec.ephemeral:  # it must outlive the golden snapshot
            import shutil  # imports compression modules

            try:
                below = Path(shutil.copy(below, spec.directory / FIRST_LAYER))
            except OSError as error:
                raise disk_failure(error) from error
        make_files(spec, new, below)
        launch = self._launch((str(below) if spec.ephemeral else FIRST_LAYER, new))
        return launch._replace(stands_still=False)

    async def load(self, monitor: Monitor) -> None:
        await super().load(monitor)
        await monitor.execute("cont")


def copy_of(golden: Path) -> StartSource:
    """Return the start of a copy of the golden snapshot in that directory."""
    return Cloned(golden) if HAS_MEMORY_FILES else LoadedCopy(golden)


def save_golden(directory: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint of a machine, whose files are in `directory`, for `LoadedCopy`.

    Raises OSError.
    """
    import json

    files = {name: list(seal) for name, seal in checkpoint.files.items()}
    state = {"files": files, "machine": checkpoint.machine}
    (directory / GOLDEN_STATE).write_text(json.dumps(state), encoding="utf-8")


def _read_golden(golden: Path) -> Checkpoint:
    """Return the checkpoint of a golden snapshot. Raises HypervisorError."""
    import json

    from boincvm.hypervisor.contract import Checkpoint, FileSeal

    try:
        state = json.loads(read_regular(golden / GOLDEN_STATE, _LARGEST_STATE))
        files = {
            name: FileSeal(int(size), str(digest))
            for name, (size, digest) in state["files"].items()
        }
        return Checkpoint(1, files, dict(state["machine"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HypervisorError(f"the golden snapshot cannot be read: {error}") from error


class Cloned:
    """A start from a golden snapshot.

    A machine that gives memory back gets a copy of the memory: QEMU would punch holes into the file
    that all others have mapped (until 8.1; QEMU's docs/devel, ram_block_discard_range).
    """

    def __init__(self, golden: Path) -> None:
        self._golden = golden
        self._state = self._memory = -1

    @property
    def descriptors(self) -> tuple[int, ...]:
        return tuple(number for number in (self._state, self._memory) if number >= 0)

    def prepare(self, spec: MachineSpec) -> Launch:
        below, new = self._golden / FIRST_LAYER, layer_name(1)
        memory = str(self._golden / GOLDEN_MEMORY)
        try:
            self._state = _open_state(self._golden / GOLDEN_STATE)
            if spec.balloon:
                from boincvm.host import memory_files  # rarely needed, and a start must be quick

                self._memory = memory_files.copy(self._golden / GOLDEN_MEMORY, _MEMORY_NAME)
                memory = memory_files.path_of(self._memory)
            if not spec.ephemeral:  # it must outlive the golden snapshot
                import shutil  # imports compression modules

                below = Path(shutil.copy(below, spec.directory / FIRST_LAYER))
        except OSError as error:
            self.close()
            raise disk_failure(error) from error
        make_files(spec, new, below)
        return Launch(
            (str(below) if spec.ephemeral else FIRST_LAYER, new),
            Memory.SHARED if self._memory >= 0 else Memory.CLONE,
            memory,
            incoming=f"fd:{self._state}",
            has_memory=False,
        )

    async def load(self, monitor: Monitor) -> None:
        import asyncio

        # QEMU may reopen its files until the guest runs.
        with monitor.events("RESUME") as events:
            try:
                async with asyncio.timeout(LOAD_LIMIT):
                    status = await monitor.execute("query-status")
                    if not isinstance(status, dict) or not status["running"]:
                        await events.get()
            except TimeoutError:
                raise HypervisorError(f"it was not loaded within {LOAD_LIMIT:g} s") from None

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self._state = self._memory = -1


def _open_state(path: Path) -> int:
    """Open the devices' state of a golden snapshot for QEMU to read to its end. Raises OSError.

    It is in a pipe, for QEMU 11 refuses files. Where no pipe can be as large, because this user has
    too many, or the state is too long, it is the file, which older ones take.
    """
    file = open_descriptor(path)
    try:
        state = read_at(file, _LARGEST_PIPE + 1, 0)
        reader, writer = os.pipe()
    except BaseException:
        os.close(file)
        raise
    try:
        with suppress(OSError):
            widen(writer, len(state))
        fits = len(state) <= min(capacity(writer), _LARGEST_PIPE)
        if fits:
            os.write(writer, state)  # a pipe of that size takes all of it at once
    finally:
        os.close(writer)
    os.close(file if fits else reader)
    return reader if fits else file
