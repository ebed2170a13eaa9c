"""This host itself as a guest on a bus, without a virtual machine or a shim.

Its files, in a directory named by its id beneath `data_directory()/guest` (mode 0700):

    lock         held while it runs
    work-…/      where commands run and files go, unless another directory is given; kept if
                 anything is in it
    spool/       files in transfer; emptied at the next start, as is
    status-channels/  FIFOs of running programs
"""

import asyncio
import os
import platform
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from pathlib import Path

from boincvm.bus.broker_address import BrokerAddress, open_bus
from boincvm.bus.client import StompBus
from boincvm.bus.outages import report_outages
from boincvm.controller.protocol.envelope import is_part_of
from boincvm.controller.protocol.guest import Guest, check_guest, check_id
from boincvm.controller.protocol.report import Report
from boincvm.controller.protocol.transfer_rules import remove
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import BoincvmError, GuestProtocolError, HostError, UsageError, host_error
from boincvm.host import resources
from boincvm.host.inherited import not_ignored
from boincvm.host.locks import open_lock, try_lock
from boincvm.host.signals import TERMINATION_SIGNALS, add_signal_handlers
from boincvm.node.files import NodeFiles
from boincvm.node.host_directory import HostDirectory
from boincvm.node.host_programs import HostPrograms
from boincvm.node.node import Node
from boincvm.paths import data_directory
from boincvm.standard_error import write_line

_STATUS_CHANNELS = "status-channels"


def guest_of_this_host(bus: BrokerAddress, wanted: str | None, labels: Mapping[str, str]) -> Guest:
    """Return this host as it announces itself.

    Its id is `wanted`, else the name by which it was invited, else the host's name. Raises
    UsageError.
    """
    is_invited = bus.dialect == "embedded"
    chosen = id_on_bus(bus, wanted or (bus.login if is_invited else platform.node()))
    known = {
        "host": platform.node(),
        "cpus": str(resources.processors()),
        "memory": str(resources.total_memory() >> 20),
    }
    guest = Guest(
        chosen,
        name=chosen,
        host=platform.node(),
        labels={**known, **labels},
        capabilities=frozenset(("run", "files")),
        instance=secrets.token_hex(8),
    )
    try:
        check_guest(guest)
    except GuestProtocolError as error:
        raise UsageError(
            error.message, hint="at most 64 labels, each of at most 255 printable characters"
        ) from error
    return guest


def id_on_bus(bus: BrokerAddress, chosen: str) -> str:
    """Return the id `chosen`, which the bus lets this login have. Raises UsageError."""
    if bus.dialect == "embedded" and not is_part_of(chosen, bus.login):
        raise UsageError(
            f"{chosen[:64]} cannot be on this bus: this host was invited as {bus.login}",
            hint=f"its id must be that, or begin with it and a dot, like {bus.login}.{chosen[:64]}",
        )
    return check_id(chosen)


class HostLoad:
    """The load of everything that runs on this host."""

    def __init__(self) -> None:
        self._started_at = time.time()
        self._before = (time.monotonic(), resources.busy_seconds())

    def report(self) -> Report:
        """Return the current load; `cpu` is measured since the previous report."""
        then, used_then = self._before
        self._before = now, used = time.monotonic(), resources.busy_seconds()
        cpu = max(used - used_then, 0.0) / (now - then) if now > then else None
        return Report(VmState.RUNNING, "", cpu, resources.used_memory(), None, self._started_at)


async def run_guest(broker_address: BrokerAddress, guest: Guest, directory: Path | None) -> None:
    """Be a guest until a signal arrives.

    Commands run in `directory`, or in a new one if it is None. Raises BoincvmError.
    """
    ended = asyncio.Event()
    add_signal_handlers(not_ignored(TERMINATION_SIGNALS), lambda _: ended.set())
    state = data_directory() / "guest" / guest.id
    with _held(state, directory) as work:
        bus = await open_bus(broker_address)
        bus.on_trouble = write_line
        report_outages(bus)
        try:
            left = await _live(bus, guest, state, work, ended)
        finally:
            await bus.close()
    if left:
        raise HostError(
            f"{left} programs of the guest do not end although they were killed",
            hint="they are waiting for a disk or a network file system that does not respond",
        )
    if bus.failure.done():
        raise BoincvmError(f"the bus has failed: {bus.failure.result()!r}")
    write_line(f"the guest {guest.id} has ended, with everything that it started")


async def _live(bus: StompBus, guest: Guest, state: Path, work: Path, ended: asyncio.Event) -> int:
    """Serve requests until `ended` is set; return how many programs did not end."""
    programs = HostPrograms(work, state / _STATUS_CHANNELS)
    # The group ends first: requests are answered before the guest says BYE.
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        files = NodeFiles(HostDirectory(work), state / "spool")
        stack.push_async_callback(files.close)
        load = HostLoad()
        there = Node(bus, guest, programs.start, group, verbs=files.verbs, report=load.report)
        await there.open()
        stack.push_async_callback(there.close)
        write_line(
            f"the guest {guest.id} is on the bus; in {work} it runs the commands that it receives,"
        )
        write_line("as this user, with all the rights of this user; Ctrl-C ends it")
        signalled = asyncio.ensure_future(ended.wait())
        try:
            await asyncio.wait((signalled, bus.failure), return_when=asyncio.FIRST_COMPLETED)
        finally:
            signalled.cancel()
            await there.stop_receiving()
            left = await programs.end()
    return left


def _remove_if_empty(directory: Path) -> None:
    with suppress(OSError):  # something is in it, which is kept
        directory.rmdir()


@contextmanager
def _held(state: Path, directory: Path | None) -> Iterator[Path]:
    """Hold the guest's lock and yield the directory where commands run.

    Raises UsageError if that guest is already running here, HostError.
    """
    with ExitStack() as stack:
        try:
            for path in (state.parent, state):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = open_lock(state / "lock")
            stack.callback(os.close, lock)
            if not try_lock(lock):
                raise UsageError(
                    f"a guest {state.name} is already running here",
                    hint="stop it, or choose another --id",
                )
            remove(state / _STATUS_CHANNELS)
            (state / _STATUS_CHANNELS).mkdir(mode=0o700)
            if directory is None:
                directory = Path(tempfile.mkdtemp(prefix="work-", dir=state))
                stack.callback(_remove_if_empty, directory)
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise host_error(
                f"the guest cannot use its directory {error.filename or ''}".rstrip(),
                error,
                hint="choose another --directory",
            ) from error
        yield directory.absolute()
