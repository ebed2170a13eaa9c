"""`python -m boincvm.shim.process DIRECTORY [--snapshot NAME]`: runs one machine.

Started by the controller, which it outlives. It holds the directory's lock
(machine_directory.py), starts the machine, is its guest on the bus, and exits when the machine
ends. On a termination signal, as when the host is shutting down, it saves the machine to disk.
"""

import argparse
import asyncio
import os
import platform
import secrets
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from boincvm import standard_error
from boincvm.bus.broker_address import open_bus
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import BoincvmError, HostError, UsageError
from boincvm.host.inherited import not_ignored, reset_inherited_state
from boincvm.host.signals import TERMINATION_SIGNALS, add_signal_handlers
from boincvm.json_value import fault_of
from boincvm.node.files import NodeFiles
from boincvm.node.machine_files import MachineFileRoot
from boincvm.node.node import Node
from boincvm.shim.machine import ShimMachine
from boincvm.shim.machine_directory import Definition, MachineDirectory
from boincvm.shim.verbs import ShimVerbs, failure


def log(line: str) -> None:
    """Write a line to the shim's log."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime())
    standard_error.write_line(f"{stamp} {line}")


def guest_of(definition: Definition, instance: str) -> Guest:
    """Return the guest as it announces itself on the bus."""
    known = {
        "image": definition.image,
        "cpus": str(definition.cpus),
        "memory": str(definition.memory >> 20),
        "host": platform.node(),
    }
    capabilities = {"run", "files", "lifecycle", *(["display"] if definition.display else [])}
    return Guest(
        definition.id,
        name=definition.id,
        host=platform.node(),
        labels={**known, **definition.labels},
        capabilities=frozenset(capabilities),
        instance=instance,
    )


async def run_shim(directory: MachineDirectory, snapshot: str | None) -> None:
    """Run the machine from its start to its end; errors are logged and kept in its status."""
    definition = directory.definition()
    # A controller that starts now finds this process by it.
    directory.write_status(directory.status()._replace(pid=os.getpid()))
    # Changes of state are reported once the guest is on the bus.
    notify: list[Callable[[], None]] = [lambda: None]
    machine = ShimMachine(directory, definition, lambda: notify[0]())
    goes_on = snapshot is None and machine.status.saved is not None
    instance = machine.status.instance if goes_on else secrets.token_hex(8)
    verbs = ShimVerbs(machine)
    try:
        bus = await open_bus(directory.bus())
    except BoincvmError as error:
        await machine.fail(error)
        raise
    try:
        # The group ends first: requests are answered before the guest says BYE.
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            files = NodeFiles(MachineFileRoot(lambda: machine.session), directory.spool)
            stack.push_async_callback(files.close)
            guest = Node(
                bus,
                guest_of(definition, instance),
                machine.programs.start,
                group,
                verbs={**verbs.table(), **files.verbs},
                report=machine.report,
            )
            try:
                machine.prepare(guest.commands, goes_on=goes_on)
            except (BoincvmError, KeyError, TypeError, ValueError) as error:
                await _did_not_start(machine, _of_commands(error))
                return
            notify[0] = guest.send_report
            await guest.open()
            stack.push_async_callback(_send_bye, guest, machine)
            try:
                _listen_for_signals(machine, verbs, group)
                if await _starts(machine, snapshot):
                    await _live(machine, verbs, bus.failure)
            finally:
                await guest.stop_receiving()
    finally:
        await machine.close()
        await bus.close()


def _listen_for_signals(machine: ShimMachine, verbs: ShimVerbs, group: asyncio.TaskGroup) -> None:
    def end(_number: int) -> None:
        if not machine.is_over:  # then the group may have ended, too
            group.create_task(verbs.end_with_host())

    add_signal_handlers(not_ignored(TERMINATION_SIGNALS), end)


async def _send_bye(guest: Node, machine: ShimMachine) -> None:
    await guest.close(comes_back=machine.status.state is VmState.SAVED)


async def _did_not_start(machine: ShimMachine, error: BoincvmError) -> None:
    await machine.fail(error)
    log(f"it did not start: {error}")


def _of_commands(error: Exception) -> BoincvmError:
    if isinstance(error, BoincvmError):
        return error
    return HostError(
        f"commands.json is damaged: {fault_of(error)}"[:500],
        hint="discard the machine's saved state: boincvm stop --discard",
    )


async def _starts(machine: ShimMachine, snapshot: str | None) -> bool:
    """Start the machine; tell whether it came up."""
    begin = asyncio.ensure_future(machine.begin(snapshot))
    ended = asyncio.ensure_future(machine.has_ended())
    try:
        await asyncio.wait((begin, ended), return_when=asyncio.FIRST_COMPLETED)
        if begin.done() and not machine.is_over:
            begin.result()
    except (BoincvmError, OSError) as error:
        if not machine.is_ending:
            await _did_not_start(machine, failure(error))
            return False
        await machine.has_ended()
    finally:
        ended.cancel()
        begin.cancel()
        await asyncio.gather(begin, ended, return_exceptions=True)
    if machine.is_over:
        log(f"it ended before it was up: {machine.status.state.label}")
        return False
    if machine.cold_because:
        log(f"booted cold: the golden snapshot was unusable: {machine.cold_because}")
    log("it is up")
    return True


async def _live(
    machine: ShimMachine, verbs: ShimVerbs, bus_failure: asyncio.Future[BaseException]
) -> None:
    """Wait until the machine has ended; save it if the bus fails, for nobody could reach it."""
    over = asyncio.ensure_future(machine.until_over())
    try:
        await asyncio.wait((over, bus_failure), return_when=asyncio.FIRST_COMPLETED)
        if bus_failure.done():
            log(f"the bus has failed: {bus_failure.result()!r}")
            await verbs.end_with_host()
        await over
    finally:
        over.cancel()
        await asyncio.gather(over, return_exceptions=True)
    status = machine.status
    log(f"it has ended: {status.state}{': ' + status.why if status.why else ''}")


async def _run_locked(directory: MachineDirectory, snapshot: str | None) -> None:
    lock = await directory.hold()
    try:
        await run_shim(directory, snapshot)
    finally:
        os.close(lock)


def main() -> int:
    """Run the shim; return 0 if the machine ended as requested, else the error's exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--snapshot")
    given = parser.parse_args()
    directory = MachineDirectory(given.directory.absolute())
    reset_inherited_state()
    os.umask(0o077)
    os.chdir("/")
    try:
        asyncio.run(_run_locked(directory, given.snapshot))
    except UsageError as error:
        log(f"there is another shim: {error.message}")
        return error.exit_code
    except BoincvmError as error:
        log(f"{error.message}; {error.hint}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
