"""What a QEMU machine starts from: a boot, a checkpoint, or a golden snapshot."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from boincvm.errors import HypervisorError
from boincvm.host.files import open_descriptor
from boincvm.hypervisor.contract import Checkpoint, MachineSpec
from boincvm.hypervisor.disks import disk_failure
from boincvm.hypervisor.qemu.launch import Launch, Memory
from boincvm.hypervisor.qemu.process import make_files, make_window

if TYPE_CHECKING:
    from boincvm.hypervisor.qemu.memory_file import MemoryImage
    from boincvm.hypervisor.qemu.monitor import (
        Monitor,
    )  # with asyncio it takes longer than QEMU's start

FIRST_LAYER = "disk-000000.qcow2"
GOLDEN_MEMORY, GOLDEN_STATE = "memory", "state"
_MEMORY_NAME = "boincvm-guest-memory"
LOAD_LIMIT = 900.0
"""Seconds that reading a machine's memory from a slow disk may take."""


def layer_name(number: int) -> str:
    """Return the file name of the root disk's layer with that number."""
    return f"disk-{number:06d}.qcow2"


def after(layer: str) -> str:
    """Return a name for the next layer after `layer`."""
    return layer_name(int(Path(layer).stem.removeprefix("disk-")) + 1)


def free_layer(directory: Path) -> str:
    """Return a name for a new layer, with a greater number than all existing ones."""
    numbers = [int(path.stem.removeprefix("disk-")) for path in directory.glob("disk-*.qcow2")]
    return layer_name(max(numbers, default=-1) + 1)


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
            from boincvm.hypervisor.qemu.saved import check_layers  # imports `re`

            check_layers(spec.layers)
            make_window(spec)
            return Launch(spec.layers)
        make_files(spec, FIRST_LAYER, spec.root)
        if self._golden:
            return Launch((FIRST_LAYER,), Memory.SHARED, str(spec.directory / GOLDEN_MEMORY))
        return Launch((FIRST_LAYER,))

    async def load(self, monitor: Monitor) -> None:
        """Do nothing: there is no state to load."""

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


class Restored:
    """A start from a checkpoint, whose files are in the machine's directory."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        from boincvm.hypervisor.qemu.saved import read_saved_state

        self._files = checkpoint.files
        self._state = read_saved_state(checkpoint)
        self._directory, self._size = Path(), 0
        self._stream, self._write_end = os.pipe()

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (self._stream,)

    def prepare(self, spec: MachineSpec) -> Launch:
        self._directory, self._size, state = spec.directory, spec.memory, self._state
        new = free_layer(spec.directory)
        image = self._memory_image()
        make_files(spec, new, spec.directory / state.layers[-1])
        return Launch(
            (*state.layers, new),
            incoming="defer",
            machine=state.machine_type,
            cpu=state.cpu,
            # A machine cloned from a golden snapshot has none.
            has_configuration=image.frame.has_configuration,
            stands_still=True,
        )

    def _memory_image(self) -> MemoryImage:
        from boincvm.hypervisor.qemu.memory_file import MemoryFileError, MemoryImage
        from boincvm.hypervisor.qemu.saved import check_sealed

        try:
            image = MemoryImage.read(self._directory, self._state.memory, self._size)
        except (MemoryFileError, OSError) as error:
            raise HypervisorError(f"the saved memory cannot be loaded: {error}") from error
        check_sealed(image.chain, self._files)
        return image

    async def load(self, monitor: Monitor) -> None:
        import asyncio

        from boincvm.hypervisor.qemu.memory_file import MemoryFileError

        def feed() -> None:
            try:
                self._memory_image().write_stream(self._write_end)
            finally:
                self._close_write_end()

        wanted = [{"capability": "events", "state": True}]
        await monitor.execute("migrate-set-capabilities", {"capabilities": wanted})
        with monitor.events("MIGRATION") as events:
            try:
                async with asyncio.timeout(LOAD_LIMIT):
                    await monitor.execute("migrate-incoming", {"uri": f"fd:{self._stream}"})
                    # Only QEMU has it now, so the writer notices if QEMU ends.
                    os.close(self._stream)
                    self._stream = -1
                    await asyncio.to_thread(feed)
                    while (await events.get())["data"] != {"status": "completed"}:
                        pass  # it is set up, and active
            except (MemoryFileError, OSError) as error:
                raise HypervisorError(f"the saved memory cannot be loaded: {error}") from error
            except TimeoutError:
                raise HypervisorError(f"it was not loaded within {LOAD_LIMIT:g} s") from None

    def _close_write_end(self) -> None:
        if self._write_end >= 0:
            os.close(self._write_end)
            self._write_end = -1

    def close(self) -> None:
        self._close_write_end()
        if self._stream >= 0:
            os.close(self._stream)
            self._stream = -1


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
            self._state = open_descriptor(self._golden / GOLDEN_STATE)
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
            has_configuration=False,  # `xen-save-devices-state` leaves it out
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
