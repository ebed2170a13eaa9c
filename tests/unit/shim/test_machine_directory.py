"""The files of a machine: as written, incomplete, hostile, or locked by another process."""

import asyncio
import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from boincvm.bus.broker_address import BrokerAddress
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import BoincvmError, HostError, UsageError
from boincvm.shim import machine_directory
from boincvm.shim.machine_directory import Definition, MachineDirectory, Status
from support.anything import ANYTHING, HUGE
from support.file_locks import until_waited_for

DEFINITION = Definition("a", "base", 1 << 28, 2, None, False, True, {"site": "cern"}, 1.5)
BUS = BrokerAddress("a", "secret", path="/run/bus.sock")
READERS: dict[str, Callable[[MachineDirectory], object]] = {
    "machine.json": MachineDirectory.definition,
    "bus.json": MachineDirectory.bus,
    "state.json": MachineDirectory.status,
    "snapshots.json": MachineDirectory.snapshots,
    "commands.json": MachineDirectory.commands,
}
each_file = pytest.mark.parametrize("name", READERS)


@pytest.fixture
def location(tmp_path: Path) -> MachineDirectory:
    made = MachineDirectory(tmp_path / "machines" / "a")
    made.make(DEFINITION, BUS)
    return made


def write(location: MachineDirectory, name: str, content: bytes) -> None:
    (location.directory / name).write_bytes(content)


def test_it_is_read_as_it_was_written(location: MachineDirectory) -> None:
    assert (location.definition(), location.bus()) == (DEFINITION, BUS)
    assert location.status()._replace(at=0) == Status()
    status = Status(VmState.SAVED, "why", "digest", ("one", "two"), 7, "life", 1.5, pid=99)
    location.write_status(status)
    assert location.status()._replace(at=0) == status
    assert location.status().at > 1e9
    assert (location.snapshots(), location.commands()) == ([], [])
    for tables in ([{"name": "é\ud800"}], []):
        location.write_snapshots(tables)
        location.write_commands(tables)
        assert (location.snapshots(), location.commands()) == (tables, tables)
    assert not (location.directory / "commands.json").exists()


def test_it_is_its_owner_s_alone(location: MachineDirectory) -> None:
    assert stat.S_IMODE(location.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((location.directory / "bus.json").stat().st_mode) == 0o600
    location.write_bus(BUS)
    assert stat.S_IMODE((location.directory / "bus.json").stat().st_mode) == 0o600


@each_file
@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\0" * 100, b"\xff", b"{", b"{}", b"[]", b"null", b'"text"', b"7", b"[" * 100_000),
        *(b'{"snapshots": {}, "commands": {}}', b'{"snapshots": [7], "commands": [7]}'),
    ],
    ids=lambda content: str(content[:9]),
)
def test_what_makes_no_sense(name: str, content: bytes, location: MachineDirectory) -> None:
    write(location, name, content)
    with pytest.raises(HostError, match="is damaged") as reported:
        READERS[name](location)
    assert name in reported.value.message
    assert len(reported.value.message) <= 500
    assert reported.value.hint


@pytest.mark.parametrize("name", list(READERS)[:3])
def test_a_file_that_is_torn_at_any_place(name: str, location: MachineDirectory) -> None:
    whole = (location.directory / name).read_bytes()
    for end in range(len(whole) - 1):
        write(location, name, whole[:end])
        with pytest.raises(HostError, match="is damaged"):
            READERS[name](location)


@each_file
def test_a_file_that_is_too_large_is_not_read_whole(
    name: str, location: MachineDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_directory, "_MOST_BYTES", {"snapshots.json": 1 << 20})
    with (location.directory / name).open("wb") as file:
        file.write(b'{"snapshots": [], "commands": []}')
        file.truncate(1 << 40)
    with pytest.raises(HostError, match="too large"):
        READERS[name](location)


@pytest.mark.parametrize("name", list(READERS)[:3])
def test_spaces_do_not_hide_what_is_too_large(name: str, location: MachineDirectory) -> None:
    write(location, name, (location.directory / name).read_bytes() + b" " * (1 << 20))
    with pytest.raises(HostError, match="too large"):
        READERS[name](location)


@each_file
@pytest.mark.parametrize("kind", ["link", "pipe", "directory", "loop"])
def test_what_is_no_file(name: str, kind: str, location: MachineDirectory, tmp_path: Path) -> None:
    """No link is followed, and nothing waits for the writer of a pipe."""
    path, elsewhere = location.directory / name, tmp_path / "elsewhere"
    if path.exists():
        path.rename(elsewhere)
    else:
        elsewhere.write_text('{"snapshots": [], "commands": []}')
    if kind == "link":
        path.symlink_to(elsewhere)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(path)
    with pytest.raises(HostError, match="is damaged"):
        READERS[name](location)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("machine.json", "id", "../a"),
        ("machine.json", "id", "all"),
        ("machine.json", "id", None),
        ("machine.json", "image", "a/b"),
        ("machine.json", "memory", "1G"),
        ("machine.json", "memory", -1),
        ("machine.json", "memory", HUGE),
        ("machine.json", "cpus", 0),
        ("machine.json", "cpus", True),
        ("machine.json", "disk", 1.5),
        ("machine.json", "network", 1),
        ("machine.json", "display", None),
        ("machine.json", "labels", ["site"]),
        ("machine.json", "labels", {"site": 1}),
        ("machine.json", "made", HUGE),
        ("machine.json", "made", float("nan")),
        ("machine.json", "made", float("inf")),
        ("bus.json", "port", -1),
        ("bus.json", "port", "1"),
        ("bus.json", "path", None),
        ("bus.json", "passcode", ["secret"]),
        ("bus.json", "dialect", "klingon"),
        ("bus.json", "more", "than there is"),
        ("state.json", "state", "on fire"),
        ("state.json", "layers", "disk"),
        ("state.json", "saved", -1),
        ("state.json", "saved", "1"),
        ("state.json", "started_at", float("nan")),
        ("state.json", "started_at", True),
        ("state.json", "at", HUGE),
        ("state.json", "pid", 1 << 40),
        ("state.json", "pid", -1),
    ],
)
def test_a_value_that_cannot_be(
    name: str, key: str, value: object, location: MachineDirectory
) -> None:
    table = json.loads((location.directory / name).read_bytes())
    write(location, name, json.dumps({**table, key: value}).encode())
    with pytest.raises(HostError, match="is damaged"):
        READERS[name](location)


@pytest.mark.parametrize("name", list(READERS)[:3])
def test_a_value_that_is_missing(name: str, location: MachineDirectory) -> None:
    table = json.loads((location.directory / name).read_bytes())
    optional = {
        "bus.json": set(BrokerAddress._field_defaults) - {"port"},
        "machine.json": set(Definition._field_defaults),  # an older version did not write them
        "state.json": {"was_shut_down"},  # as above: then the machine counts as switched off
    }.get(name, set())
    for key in table.keys() - optional:
        rest = {other: value for other, value in table.items() if other != key}
        write(location, name, json.dumps(rest).encode())
        with pytest.raises(HostError, match="is damaged"):
            READERS[name](location)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(some.sampled_from(list(READERS)), some.data())
def test_anything_is_read_or_refused(
    location: MachineDirectory, name: str, data: some.DataObject
) -> None:
    table = {**DEFINITION._asdict(), **BUS._asdict(), **Status()._asdict()}
    keys = some.sampled_from([*table, "snapshots", "commands"])
    changed = {**table, **data.draw(some.dictionaries(keys, ANYTHING))}
    write(location, name, json.dumps(changed).encode())
    try:
        read = READERS[name](location)
    except HostError:
        return
    json.dumps(read, allow_nan=name in ("snapshots.json", "commands.json"))


def test_where_there_is_none(tmp_path: Path) -> None:
    nowhere = MachineDirectory(tmp_path / "none")
    for name, read in READERS.items():
        if name in ("snapshots.json", "commands.json"):
            assert read(nowhere) == []
        else:
            with pytest.raises(HostError, match="there is no machine"):
                read(nowhere)
    with pytest.raises(HostError, match="has gone"):
        nowhere.is_locked()
    with pytest.raises(HostError, match="has gone"), nowhere.held():
        pass


def test_what_cannot_be_written_leaves_what_was_there(
    location: MachineDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = {path.name: path.read_bytes() for path in location.directory.glob("*.json")}
    monkeypatch.setattr(os, "fsync", full_disk)
    for write_something in (
        lambda: location.write_status(Status(VmState.RUNNING)),
        lambda: location.write_bus(BUS._replace(passcode="another")),
        lambda: location.write_snapshots([{"name": "x"}]),
        lambda: location.write_commands([{"id": "x"}]),
    ):
        with pytest.raises(OSError, match="No space"):
            write_something()
    after = {
        path.name: path.read_bytes() for path in location.directory.iterdir() if path.is_file()
    }
    assert after == before


def test_no_machine_twice(location: MachineDirectory) -> None:
    with pytest.raises(UsageError, match="already a machine a"):
        location.make(DEFINITION._replace(cpus=9), BUS)
    assert location.definition() == DEFINITION


# The lock.


def test_the_lock_is_one_s_alone(location: MachineDirectory) -> None:
    assert not location.is_locked()
    with location.held():
        assert location.is_locked()
        with (
            pytest.raises(UsageError, match="a is running"),
            MachineDirectory(location.directory).held(),
        ):
            pass
        assert location.is_locked()
    assert not location.is_locked()
    with pytest.raises(BoincvmError), location.held():
        raise BoincvmError("within")
    assert not location.is_locked()


def test_no_program_that_is_begun_has_the_lock(location: MachineDirectory) -> None:
    with location.held() as descriptor:
        assert not os.get_inheritable(descriptor)
    assert stat.S_IMODE((location.directory / "lock").stat().st_mode) == 0o600


def test_the_lock_is_no_link(location: MachineDirectory, tmp_path: Path) -> None:
    (location.directory / "lock").unlink(missing_ok=True)
    (location.directory / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostError):
        location.is_locked()
    assert not (tmp_path / "elsewhere").exists()


async def test_a_new_shim_waits_for_who_has_the_lock_for_a_moment(
    location: MachineDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with location.held():
        waits = asyncio.ensure_future(location.hold())
        await until_waited_for(location.directory / "lock", waits)
    lock = await waits
    assert location.is_locked()
    monkeypatch.setattr(machine_directory, "_LOCK_LIMIT", 0.1)
    with pytest.raises(UsageError, match="the machine a is running"):
        await location.hold()
    os.close(lock)
