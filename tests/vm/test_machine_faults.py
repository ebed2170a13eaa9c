"""A machine of the controller that ends while a program runs in it, however it came up."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from boincvm.exit_codes import ExitCode
from support.bench import kill, read_line, until, wait_for_end
from support.controller.controlled import children_of
from support.controller.home import LIMIT
from support.garble import SEND_GARBAGE, write_garble
from support.killed_on_failure import killed_on_failure
from support.machine_any import AnyMachine

pytestmark = pytest.mark.timeout(240)


def shim_of(machine: AnyMachine) -> int:
    """Return the process that runs the machine; another user may have one of that name."""
    name = os.fsencode(machine.home.directory / "data/controller/machines" / machine.name)
    (found,) = (
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if b"-m" in (words := words_of(process)) and name in words
    )
    return found


def words_of(process: Path) -> list[bytes]:
    try:
        return (process / "cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def hypervisor_is_killed(machine: AnyMachine) -> None:
    (qemu,) = children_of(shim_of(machine))
    wait_for_end(kill(qemu))


def shim_is_killed(machine: AnyMachine) -> None:
    shim = shim_of(machine)
    ends = [os.pidfd_open(pid) for pid in children_of(shim)]
    wait_for_end(kill(shim))
    for end in ends:  # QEMU ends with it
        wait_for_end(end)


def says_garbage(machine: AnyMachine) -> None:
    write_garble(machine.here / "garble")
    machine.put("garble", "garble")
    machine.home.run("exec", "--detach", machine.name, "--", "sh", "-c", SEND_GARBAGE)


def panics(machine: AnyMachine) -> None:
    sysrq(machine, "c")


def powers_off(machine: AnyMachine) -> None:
    sysrq(machine, "o")


def reboots(machine: AnyMachine) -> None:
    sysrq(machine, "b")


def sysrq(machine: AnyMachine, word: str) -> None:
    script = f"echo {word} >/proc/sysrq-trigger"
    machine.home.run("exec", "--detach", machine.name, "--", "sh", "-c", script, code=None)


@pytest.mark.parametrize(
    ("fault", "state", "why"),
    [
        (hypervisor_is_killed, "aborted", "killed from outside: signal 9 ended QEMU"),
        (shim_is_killed, "aborted", "its shim was killed"),
        (says_garbage, "aborted", "'GARBAGE' is not a STOMP command"),
        (panics, "aborted", "the guest's kernel panicked: sysrq triggered crash"),
        (powers_off, "powered_off", ""),
        (reboots, "powered_off", ""),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_its_end_is_reported_and_it_starts_again(
    own_machine_any: AnyMachine, fault: Callable[[AnyMachine], None], state: str, why: str
) -> None:
    machine = own_machine_any
    machine.sh("echo kept >file; sync file; sync; sync")
    waits = machine.home.begin("exec", machine.name, "--", "sh", "-c", "echo ready; sleep 1000")
    with killed_on_failure(waits):
        assert read_line(waits.stdout) == b"ready\n"
        fault(machine)
        _, stderr = waits.communicate(timeout=LIMIT)
        assert waits.returncode == ExitCode.GUEST_DIED, stderr
    until(lambda: machine.home.state(machine.name) == state)
    (reported,) = machine.home.call_json("ls", machine.name)["vms"]
    assert why in reported["why"]
    assert bool(reported["why"]) is bool(why)
    machine.home.run("start", machine.name)
    assert machine.sh("cat file") == b"kept\n"


def test_one_that_is_ended_by_its_user(own_machine_any: AnyMachine) -> None:
    """It is ended in the way that flushes its disk."""
    machine = own_machine_any
    machine.sh("echo kept >file")  # not written out by anybody
    waits = machine.home.begin("exec", machine.name, "--", "sh", "-c", "echo ready; sleep 1000")
    with killed_on_failure(waits):
        assert read_line(waits.stdout) == b"ready\n"
        machine.home.run("stop", machine.name)
        _, stderr = waits.communicate(timeout=LIMIT)
        assert waits.returncode != 0, stderr
    assert machine.home.state(machine.name) == "powered_off"
    machine.home.run("start", machine.name)
    assert machine.sh("cat file") == b"kept\n"
    os.kill(shim_of(machine), signal.SIGTERM)  # as when the host is shut down
    until(lambda: machine.home.state(machine.name) == "saved")
    machine.home.run("start", machine.name)
    assert machine.sh("cat file") == b"kept\n"
