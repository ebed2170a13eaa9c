"""Saves a machine to disk, with the manifest by which it is found again."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from boincvm.hypervisor.contract import RecordLayers
from boincvm.job.model import MachineShape
from boincvm.machine.managed import ManagedMachine
from boincvm.machine.saved_machine import SavedMachine, SavedTask, next_number, write_saved
from boincvm.side_thread import in_side_thread

T = TypeVar("T")


class Identity(NamedTuple):
    """What must match before a machine is resumed from a checkpoint."""

    image: str
    """The image's digest."""
    shape: MachineShape


async def write_checkpoint(
    machine: ManagedMachine,
    identity: Identity,
    inspect: Callable[[], tuple[SavedTask | None, T]],
    *,
    last: bool,
    hold: bool = False,
    record_layers: RecordLayers | None = None,
    begins: Callable[[], None] | None = None,
    steps: Sequence[int] = (),
) -> tuple[SavedMachine, T]:
    """Write a checkpoint of `machine` to disk: its files first, then its manifest.

    `inspect` is called while the guest is quiet. It returns the running task, for the manifest, and
    anything else that the caller wants to know about that moment. `last`, `hold`, `record_layers`,
    `begins`: see `ManagedMachine.save`; `steps`: see `SavedMachine`. Raises HypervisorError,
    GuestError, OSError.
    """
    directory = machine.spec.directory
    checkpoint, link, (task, seen) = await machine.save(
        next_number(directory),
        inspect,
        last=last,
        hold=hold,
        record_layers=record_layers,
        begins=begins,
    )
    saved = SavedMachine(
        checkpoint=checkpoint,
        driver=machine.driver.name,
        image=identity.image,
        shape=identity.shape,
        link=link,
        steps=tuple(steps),
        task=task,
    )
    await in_side_thread(write_saved, directory, saved)
    return saved, seen
