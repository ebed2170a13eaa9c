"""The steps of one checkpoint of a QEMU machine."""

import asyncio
from contextlib import suppress

from boincvm.errors import HypervisorError, host_error
from boincvm.host.files import sync_file_and_entry
from boincvm.host.resources import processor_name
from boincvm.hypervisor import qcow2
from boincvm.hypervisor.contract import Checkpoint, FileSeal, MachineSpec, RecordLayers
from boincvm.hypervisor.disks import disk_failure, free_layer
from boincvm.hypervisor.qemu.checkpoint import (
    DOWNTIMES,
    LiveMigration,
    MemoryReceiver,
    Merge,
    OnStep,
    UntrackedWritesError,
    WrittenMemory,
)
from boincvm.hypervisor.qemu.command import (
    IMAGE_NODE,
    file_node,
    layer_node,
    layer_options,
    read_only_layer,
)
from boincvm.hypervisor.qemu.monitor import Monitor
from boincvm.hypervisor.qemu.saved import read_saved_state
from boincvm.hypervisor.qemu.start_source import next_layer
from boincvm.hypervisor.saved_state import memory_name
from boincvm.hypervisor.uninterrupted import uninterrupted

MOST_LAYERS = 8
"""Layers that the root disk may have before they are merged."""
LONGEST_CHAIN = 32
"""Memory files that one checkpoint may need before all of the memory is written again."""


class Saving:
    """Makes one checkpoint; `layers` of the root disk change in the process."""

    def __init__(
        self,
        spec: MachineSpec,
        monitor: Monitor,
        accelerator: str,
        cpu: str,
        has_hpet: bool,
        layers: tuple[str, ...],
        former: Checkpoint | None,
        record_layers: RecordLayers | None,
        on_step: OnStep,
    ) -> None:
        """Prepare the checkpoint.

        `cpu` is the guest's CPU as given to QEMU; `has_hpet`: whether the machine has an HPET;
        `former` is the previous checkpoint, relative to which only the changes are written;
        `record_layers`: see contract.py.
        """
        self.layers = layers
        self._spec = spec
        self._monitor = monitor
        self._accelerator = accelerator
        self._cpu = cpu
        self._has_hpet = has_hpet
        self._former = former
        self._record_layers = record_layers
        self._on_step = on_step
        self._seals = dict(former.files) if former else {}
        self._migration: LiveMigration | None = None

    async def run(self, number: int, *, last: bool) -> Checkpoint:
        """Make the checkpoint; the guest keeps running afterwards unless it is the last one.

        Raises HypervisorError, HostDiskFullError.
        """
        self._on_step("begun")
        memory, directory = memory_name(number), self._spec.directory
        for downtime in () if last else DOWNTIMES:
            try:
                written, pause = await self._write(memory, downtime, last=False)
                break
            except UntrackedWritesError:
                (directory / memory).unlink(missing_ok=True)
        else:
            written, pause = await self._write(memory, None, last=last)
        return await self._describe(number, memory, written, pause)

    async def _write(
        self, memory: str, downtime: int | None, *, last: bool
    ) -> tuple[WrittenMemory, float]:
        """Save the memory; return what was written, and how long the guest was stopped.

        See LiveMigration.
        """
        directory, new_layer = self._spec.directory, await self._add_layer()
        unsealed = [name for name in self.layers if name not in self._seals]
        merge = None if last else self._merge(new_layer)
        try:
            receiver = MemoryReceiver(
                directory, memory, self._base(), unsealed, merge, idle=not last
            )
        except OSError as error:
            raise host_error("no helper process can be started", error, HypervisorError) from error
        try:
            await receiver.ready()
            self._on_step("helper ready")
            try:
                pause = await self._migrate(receiver, new_layer, downtime, last=last)
            except HypervisorError:
                await receiver.result()  # raises if the helper failed
                raise
            written = await receiver.result()
        except BaseException:
            await uninterrupted(self._let_run())
            raise
        finally:
            await receiver.close()
        self._on_step("memory kept")
        if merge is not None:
            await uninterrupted(self._use_merged(merge))
        return written, pause

    async def _add_layer(self) -> str:
        """Add and record a new layer, which QEMU has open but does not use yet; return its name."""
        directory = self._spec.directory
        name = free_layer(directory)
        try:
            size = qcow2.check_disk(directory / self.layers[-1])
            qcow2.write_overlay(directory / name, size)
            if self._record_layers is not None:  # a recorded layer must survive a power cut
                await asyncio.to_thread(sync_file_and_entry, directory / name)
        except qcow2.DiskRefusedError as error:
            raise HypervisorError(f"the disk cannot be saved: {error}") from error
        except OSError as error:
            raise disk_failure(error) from error
        if self._record_layers is not None:
            await self._record_layers((*self.layers, name))
        options = layer_options(directory / name, None, durable=self._spec.durable)
        await self._monitor.execute("blockdev-add", options)
        return name

    def _merge(self, new_layer: str) -> Merge | None:
        """Return how to merge all layers, or None if there are not too many."""
        if len(self.layers) < MOST_LAYERS:
            return None
        return Merge(self.layers, next_layer(new_layer))

    async def _use_merged(self, merge: Merge) -> None:
        """Put the layer in use over the merged one, which has the same content."""
        path, top = self._spec.directory / merge.into, self._spec.directory / self.layers[-1]
        node = layer_node(merge.into)
        await self._monitor.execute("blockdev-add", read_only_layer(path, node, IMAGE_NODE))
        options = layer_options(top, node, durable=self._spec.durable)
        changed = {**options, "file": file_node(top.name)}
        await self._monitor.execute("blockdev-reopen", {"options": [changed]})
        for name in reversed(merge.layers):
            await self._monitor.execute("blockdev-del", {"node-name": layer_node(name)})
        self.layers = (merge.into, self.layers[-1])

    async def _migrate(
        self, receiver: MemoryReceiver, new_layer: str, downtime: int | None, *, last: bool
    ) -> float:
        migration = self._migration = LiveMigration(
            self._monitor, layer_node(self.layers[-1]), layer_node(new_layer), self._on_step
        )
        frozen = self.layers
        try:
            await migration.run(receiver.stream, downtime)
        except BaseException as error:
            is_over = isinstance(error, UntrackedWritesError)
            await uninterrupted(self._give_up(migration, is_over=is_over))
            raise
        finally:
            receiver.close_stream()
            if migration.has_switched:
                self.layers = (*frozen, new_layer)
        if not last:
            await migration.resume()
            self._on_step("guest runs")
        return migration.pause()

    async def _let_run(self) -> None:
        """Let the guest run again, whose memory had all been sent before the attempt failed."""
        if self._migration is not None:
            with suppress(HypervisorError):  # QEMU may be gone, which is reported elsewhere
                await self._migration.resume()

    async def _give_up(self, migration: LiveMigration, *, is_over: bool) -> None:
        """Let the guest run on, and have QEMU drop the new layer if it is unused."""
        with suppress(HypervisorError):  # QEMU may be gone, which is reported elsewhere
            if not is_over:
                await migration.cancel()
            await migration.resume()
            if not migration.has_switched:
                node: dict[str, object] = {"node-name": migration.new_layer}
                await self._monitor.execute("blockdev-del", node)

    def _base(self) -> str | None:
        """Return the memory file relative to which only the changes are written.

        Returns None if that file needs too many others, if most of their content is obsolete, or if
        one was removed.
        """
        if self._former is None:
            return None
        chain = [name for name in self._former.files if name.startswith("memory-")]
        if not all((self._spec.directory / name).exists() for name in chain):
            return None
        size = sum(self._former.files[name].size for name in chain)
        live = self._former.machine.get("live")
        if len(chain) >= LONGEST_CHAIN or not isinstance(live, int) or size > 2 * live:
            return None
        return read_saved_state(self._former).memory

    async def _describe(
        self, number: int, memory: str, written: WrittenMemory, pause: float
    ) -> Checkpoint:
        layers = self.layers[:-1]
        seals: dict[str, FileSeal] = {**self._seals, **written.files}
        return Checkpoint(
            number=number,
            files={name: seals[name] for name in (*written.chain, *layers)},
            machine={
                "qemu": await self._version(),
                "type": await self._monitor.machine_type(),
                "accelerator": self._accelerator,
                "cpu": self._cpu,
                "hpet": self._has_hpet,
                "processor": processor_name(),
                "memory": memory,
                "layers": list(layers),
                "live": written.live,
            },
            pause=pause,
            written=sum(seal.size for seal in written.files.values()),
        )

    async def _version(self) -> str:
        answer = await self._monitor.execute("query-version")
        parts = answer["qemu"] if isinstance(answer, dict) else {}
        return ".".join(str(parts[name]) for name in ("major", "minor", "micro"))
