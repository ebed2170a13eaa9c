"""Kill something, again and again, while a controller operates on a machine.

    PYTHONPATH=tests python -m support.controller.killed_operations DIRECTORY \
        [--rounds N] [--minutes N] [--seed N] [--only NAME[:VICTIM]]

Each round makes a machine, begins an operation on it through the controller's HTTP interface, kills
the shim, the hypervisor or the controller at a random moment, and then checks that `list` tells the
truth about the machine, that it starts, that `exec` returns what was on its disk, that its
snapshots are intact, and that nothing is left behind. A program in the machine continually writes,
syncs and prints a number: each number received must be on the disk. At the end the number of rounds
is printed for each pair, and how many of them went wrong.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from boincvm.client.address import ControllerAddress
from boincvm.client.client import Client
from boincvm.errors import BoincvmError
from boincvm.hypervisor import disk_lock
from boincvm.shim.machine_directory import MachineDirectory
from boincvm.shim.snapshots import Snapshots, read_checkpoint
from support.bench import kill as send_kill
from support.bench import until, wait_for_end
from support.golden_home import BOINCVM, link_images

VICTIMS = ("shim", "hypervisor", "controller")
LIMIT = 60.0
"""Seconds for any step, unless something is wrong."""
PROMPT = 20.0
"""Seconds within which the requester must get an answer after something was killed."""
MOMENT = 0.05
"""Seconds between two looks at what nothing announces."""
SETTLED = {"powered_off", "running", "paused", "saved", "aborted"}
_NEVER = "it did not come to an end"
_COUNTS = """i=0
while [ ! -e stop ]; do
    i=$((i+1)); echo $i >counted.new; sync counted.new; mv counted.new counted
    sync counted; echo $i; sleep 0.02
done"""


class Operation(NamedTuple):
    """An operation on a machine."""

    prepare: tuple[str, ...]
    """Operations that the controller does before, while the machine runs; "-start": it does not
    run, "-new": it has never run."""
    ask: Callable[["Fleet", str], object]
    longest: float
    """Approximate duration in seconds, within which something may be killed."""


class Killed(NamedTuple):
    """The result of one round."""

    operation: str
    victim: str
    delay: float
    state: str
    took: float
    """Seconds from the kill until the requester got an answer."""
    printed: str


class Fleet:
    """A controller in a process of its own, and a client of it."""

    def __init__(self, directory: Path) -> None:
        self.home = directory / "home"
        # Killing a machine that starts as a copy removes the golden snapshot.
        link_images(self.home / "data" / "images")
        self.directory = self.home / "data" / "controller"
        self.files = directory
        self.client = Client(ControllerAddress(self.directory / "http.sock"))
        self.process: subprocess.Popen[str] | None = None
        self.environment = {**os.environ, "BOINCVM_HOME": str(self.home)}
        warm = ["image", "warm", "--controller", "--memory", "256M", "base"]
        subprocess.run([*BOINCVM, *warm], env=self.environment, check=True, timeout=LIMIT)

    def begin(self) -> None:
        """Start the controller and wait until it answers."""
        self.process = subprocess.Popen(
            [*BOINCVM, "controller"],
            env=self.environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if "the controller is running" in line:
                return
        raise AssertionError("the controller did not start")

    def end(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(LIMIT)
            assert self.process.stderr is not None
            self.process.stderr.close()
            self.process = None

    def machine_directory(self, vm: str) -> MachineDirectory:
        return MachineDirectory(self.directory / "machines" / vm)

    def do(self, operation: str, vm: str, **asked: object) -> Mapping[str, Any]:
        """Return the operation's outcome; an error is raised."""
        outcome = self.client.call(operation, vms=vm, **asked)["outcomes"][vm]  # type: ignore[index,call-overload]
        if "error" in outcome:
            raise BoincvmError(outcome["error"]["message"])
        return outcome

    def vm(self, vm: str) -> Mapping[str, Any] | None:
        found = self.client.call("list", vms=vm)["vms"]
        return found[0] if found else None  # type: ignore[index,return-value]

    def run(self, vm: str, script: str) -> tuple[object, str]:
        """Run a script; return its exit code and output."""
        reported, output = self.client.run(vms=vm, argv=["sh", "-c", script])
        for _ in output:
            pass
        command = self.client.call("command", id=reported["command"], output=True)
        answer = command["answers"][vm]  # type: ignore[index,call-overload]
        return answer["code"], answer["output"]["stdout"]  # type: ignore[index,call-overload,return-value]

    def begin_to_count(self, vm: str) -> str:
        """Start counting in the machine and wait for the first number; return the command's id."""
        reported, output = self.client.run(vms=vm, argv=["sh", "-c", _COUNTS])
        assert "data" in next(output)
        return str(reported["command"])

    def last_count(self, command: str, vm: str) -> int:
        """Return the last number that the count has reported."""
        reported: Any = self.client.call("command", id=command, output=True)
        lines = str(reported["answers"][vm]["output"]["stdout"]).split("\n")
        return int(lines[-2])

    def put(self, vm: str) -> object:
        data = bytes(24 << 20)
        outcome: Any = self.client.put(
            vm, "put", data, len(data), is_tree=False, mode=0o600, transfer=os.urandom(4).hex()
        )
        return outcome

    def get(self, vm: str) -> object:
        with self.client.get(vm, "large", transfer=os.urandom(4).hex()) as gotten:
            return sum(map(len, gotten.chunks))

    def until_commands_end(self, vm: str) -> None:
        open_ones: Any = self.client.call("commands", finished=False)["commands"]
        for command in open_ones:
            if vm in command["answers"]:
                for _ in self.client.output(command["id"]):
                    pass

    def until_settled(self, vm: str) -> Mapping[str, Any] | None:
        """Wait until the machine's state is lasting and fits its processes.

        Returns the machine, or None if it was removed. No event says that a process has ended which
        the kernel was told to end. Raises TimeoutError.
        """
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            found = self.vm(vm)
            if found is None:
                return None
            expected = 2 if found["state"] in ("running", "paused") else 0
            running = processes_of(self.machine_directory(vm).directory)
            if found["state"] in SETTLED and len(running) == expected:
                return found
            time.sleep(MOMENT)
        raise TimeoutError


OPERATIONS = {
    "first start": Operation(("-new",), lambda fleet, vm: fleet.do("start", vm), 2.5),
    "start": Operation(("-start",), lambda fleet, vm: fleet.do("start", vm), 2.5),
    "stop": Operation((), lambda fleet, vm: fleet.do("stop", vm), 0.6),
    "power_off": Operation((), lambda fleet, vm: fleet.do("power_off", vm), 0.1),
    "reset": Operation((), lambda fleet, vm: fleet.do("reset", vm), 2.5),
    "suspend": Operation((), lambda fleet, vm: fleet.do("pause", vm), 0.05),
    "resume": Operation(("pause",), lambda fleet, vm: fleet.do("resume", vm), 0.05),
    "suspend --to-disk": Operation((), lambda fleet, vm: fleet.do("save", vm), 0.7),
    "wake": Operation(("save",), lambda fleet, vm: fleet.do("start", vm), 1.2),
    "snapshot take": Operation((), lambda fleet, vm: fleet.do("snapshot_take", vm, name="x"), 1.0),
    "snapshot restore": Operation(
        ("snapshot_take",), lambda fleet, vm: fleet.do("snapshot_restore", vm), 1.2
    ),
    "snapshot rm": Operation(
        ("snapshot_take",), lambda fleet, vm: fleet.do("snapshot_remove", vm, name="s"), 0.05
    ),
    "rm": Operation((), lambda fleet, vm: fleet.do("remove", vm, force=True), 0.2),
    "exec": Operation((), lambda fleet, vm: fleet.run(vm, "sleep 1; echo"), 1.2),
    "cp in": Operation((), lambda fleet, vm: fleet.put(vm), 1.0),
    "cp out": Operation((), lambda fleet, vm: fleet.get(vm), 1.0),
}
PAIRS = tuple(product(OPERATIONS, VICTIMS))


@contextmanager
def fleet_in(directory: Path) -> Iterator[Fleet]:
    """Run a fleet within the block; check that nothing of it is left afterwards."""
    fleet = Fleet(directory)
    fleet.begin()
    try:
        yield fleet
    finally:
        if fleet.process is None or fleet.process.poll() is not None:
            fleet.begin()
        if fleet.client.call("list")["vms"]:
            fleet.client.call("remove", vms="**", force=True)
        fleet.end()
    until(lambda: not processes_of(fleet.directory), LIMIT)
    assert list((fleet.directory / "machines").iterdir()) == []


def play(fleet: Fleet, vm: str, name: str, victim: str, delay: float) -> Killed:
    """Play one round with a machine of its own. Raises AssertionError with all that is known."""
    operation = OPERATIONS[name]
    fleet.client.call("create", name=vm, memory="256M")
    is_new, counting = operation.prepare == ("-new",), ""
    if not is_new:
        fleet.do("start", vm)
        stored = "echo kept >kept && head -c 24000000 /dev/zero >large && sync kept large"
        assert fleet.run(vm, stored) == (0, "")
        counting = fleet.begin_to_count(vm)
    for verb in () if is_new else operation.prepare:
        named = {"name": "s"} if verb == "snapshot_take" else {}
        fleet.do("power_off" if verb == "-start" else verb, vm, **named)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(operation.ask, fleet, vm)
        time.sleep(delay)  # the moment is what is tested
        kill(fleet, vm, victim)
        begin = time.monotonic()
        printed = error_of(asked)
        took = time.monotonic() - begin
        if victim == "controller":
            fleet.begin()
        where = f"{name}, {victim} killed after {delay:.3f} s, {printed}"
        assert printed != _NEVER, where
        state = settles(fleet, vm, where)
        assert took < PROMPT, (where, took)
    if state != "removed":
        goes_on(fleet, vm, state, where, counting, goes_back=name == "snapshot restore")
    return Killed(name, victim, delay, state, took, printed)


def error_of(asked: "Future[object]") -> str:
    try:
        asked.result(LIMIT)
    except BoincvmError as error:
        return error.message
    except TimeoutError:
        return _NEVER
    return "done"


def settles(fleet: Fleet, vm: str, where: str) -> str:
    """Wait until the machine's state is lasting and check that it is true; return it."""
    try:
        reported = fleet.until_settled(vm)
    except TimeoutError:
        raise AssertionError(f"{where}: for ever {fleet.vm(vm)}") from None
    if reported is None:
        assert not fleet.machine_directory(vm).directory.exists(), where
        until(lambda: not processes_of(fleet.machine_directory(vm).directory), LIMIT)
        return "removed"
    state = str(reported["state"])
    assert (state == "aborted") == bool(reported["why"]), (where, reported)
    assert fleet.machine_directory(vm).status().state == state, where
    return state


def goes_on(
    fleet: Fleet, vm: str, state: str, where: str, counting: str, *, goes_back: bool
) -> None:
    """Check that the machine starts, has its former contents, and leaves nothing.

    `counting`: the command in it that counts, if any. `goes_back`: its contents may be older.
    """
    assert fleet.do("start", vm)["state"] == "running", where
    last_number = fleet.last_count(counting, vm) if counting else 0
    stored = "kept\n" if counting else ""
    contents = fleet.run(vm, "cat kept 2>/dev/null; true")
    around = "" if contents == (0, stored) else fleet.run(vm, "ls -la; dmesg | tail -n 40")
    assert contents == (0, stored), (where, contents, around)
    code, counted = fleet.run(vm, "touch stop; cat counted 2>/dev/null || echo 0")
    assert code == 0, where
    assert goes_back or int(counted) >= last_number, (where, counted, last_number)
    fleet.until_commands_end(vm)  # a command outlives its controller
    assert fleet.client.call("list", vms=vm)["vms"][0]["commands"] == 0, where  # type: ignore[index,call-overload]
    location = fleet.machine_directory(vm)
    allowed = {*location.status().layers, "transfer-disk", "qemu.log", disk_lock.FILE}
    for one in Snapshots(location).all():
        saved = read_checkpoint(location, one.number)  # which checks that it is complete
        allowed |= {f"checkpoint-{one.number:06d}.json", *saved.checkpoint.files}
    found = {path.name for path in location.disk.iterdir()}
    assert found <= allowed, (where, state, sorted(found - allowed))
    fleet.do("power_off", vm)
    assert not location.spool.exists() or list(location.spool.iterdir()) == [], where
    assert processes_of(location.directory) == [], where
    known = {"machine.json", "bus.json", "state.json", "snapshots.json", "lock", "shim.log"}
    left = {path.name for path in location.directory.iterdir()} - known - {"disk", "spool"}
    assert left == set(), (where, left)
    fleet.do("remove", vm)


def kill(fleet: Fleet, vm: str, victim: str) -> None:
    """Kill the victim's processes that exist now, and wait for their ends.

    One that waits for the disk ends later, and would be taken for one that runs.
    """
    if victim == "controller":
        fleet.end(signal.SIGKILL)
        return
    ends = []
    for pid, words in processes_of(fleet.machine_directory(vm).directory):
        if ("qemu" in words[0]) is (victim == "hypervisor"):
            with suppress(ProcessLookupError):
                ends.append(send_kill(pid))
    for end in ends:
        wait_for_end(end, LIMIT)


def processes_of(directory: Path) -> list[tuple[int, list[str]]]:
    """List shims and hypervisors of machines beneath that directory, and their helpers."""
    found = []
    for path in Path("/proc").iterdir():
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            continue
        text = [os.fsdecode(word) for word in words if word]
        if state not in "ZX" and any(str(directory) in word for word in text):
            found.append((int(path.name), text))
    return found


def rounds(
    seed: int, count: int, pairs: tuple[tuple[str, str], ...] = PAIRS
) -> Iterator[tuple[str, str, float]]:
    """Yield operation, victim and delay; all pairs come equally often."""
    chance = random.Random(seed)
    order: list[tuple[str, str]] = []
    for _ in range(count):
        if not order:
            order = list(pairs)
            chance.shuffle(order)
        name, victim = order.pop()
        yield name, victim, chance.uniform(0, OPERATIONS[name].longest)


def main() -> int:
    """Play the rounds; return 1 if any of them went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rounds", type=int, default=len(PAIRS))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no round begins later")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    wanted, _, victim = given.only.partition(":")
    pairs = tuple(pair for pair in PAIRS if wanted in ("", pair[0]) and victim in ("", pair[1]))
    played, bad = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    end = time.monotonic() + given.minutes * 60
    with fleet_in(given.directory) as fleet:
        for number, (name, who, delay) in enumerate(rounds(given.seed, given.rounds, pairs)):
            if time.monotonic() > end:
                break
            played[name, who] += 1
            try:
                print(number, play(fleet, f"m{number}", name, who, delay), flush=True)
            except (AssertionError, BoincvmError, OSError) as error:
                bad[name, who] += 1
                print(number, "BAD", name, who, f"{delay:.3f}", error, flush=True)
                if fleet.process is None or fleet.process.poll() is not None:
                    fleet.begin()
    for pair in pairs:
        print(f"{', '.join(pair)} killed: {played[pair]} rounds, {bad[pair]} of them bad")
    print(f"{played.total()} rounds, {bad.total()} of them bad")
    return int(bad.total() > 0)


if __name__ == "__main__":
    sys.exit(main())
