"""What lies on disk for a machine: as it was written, torn, hostile, or held by somebody."""

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
def place(tmp_path: Path) -> MachineDirectory:
    made = MachineDirectory(tmp_path / "machines" / "a")
    made.make(DEFINITION, BUS)
    return made


def write(place: MachineDirectory, name: str, content: bytes) -> None:
    (place.directory / name).write_bytes(content)


def test_it_is_read_as_it_was_written(place: MachineDirectory) -> None:
    assert (place.definition(), place.bus()) == (DEFINITION, BUS)
    assert place.status()._replace(at=0) == Status()
    status = Status(VmState.SAVED, "why", "digest", ("one", "two"), 7, "life", 1.5, pid=99)
    place.write_status(status)
    assert place.status()._replace(at=0) == status
    assert place.status().at > 1e9
    assert (place.snapshots(), place.commands()) == ([], [])
    for tables in ([{"name": "é\ud800"}], []):
        place.write_snapshots(tables)
        place.write_commands(tables)
        assert (place.snapshots(), place.commands()) == (tables, tables)
    assert not (place.directory / "commands.json").exists()


def test_it_is_its_owner_s_alone(place: MachineDirectory) -> None:
    assert stat.S_IMODE(place.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((place.directory / "bus.json").stat().st_mode) == 0o600
    place.write_bus(BUS)
    assert stat.S_IMODE((place.directory / "bus.json").stat().st_mode) == 0o600


@each_file
@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\0" * 100, b"\xff", b"{", b"{}", b"[]", b"null", b'"text"', b"7", b"[" * 100_000),
        *(b'{"snapshots": {}, "commands": {}}', b'{"snapshots": [7], "commands": [7]}'),
    ],
    ids=lambda content: str(content[:9]),
)
def test_what_makes_no_sense(name: str, content: bytes, place: MachineDirectory) -> None:
    write(place, name, content)
    with pytest.raises(HostError, match="is damaged") as told:
        READERS[name](place)
    assert name in told.value.message
    assert len(told.value.message) <= 500
    assert told.value.hint


@pytest.mark.parametrize("name", list(READERS)[:3])
def test_a_file_that_is_torn_at_any_place(name: str, place: MachineDirectory) -> None:
    whole = (place.directory / name).read_bytes()
    for end in range(len(whole) - 1):
        write(place, name, whole[:end])
        with pytest.raises(HostError, match="is damaged"):
            READERS[name](place)


@each_file
def test_a_file_that_is_too_large_is_not_read_whole(
    name: str, place: MachineDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_directory, "_MOST_BYTES", {"snapshots.json": 1 << 20})
    with (place.directory / name).open("wb") as file:
        file.write(b'{"snapshots": [], "commands": []}')
        file.truncate(1 << 40)
    with pytest.raises(HostError, match="too large"):
        READERS[name](place)


@pytest.mark.parametrize("name", list(READERS)[:3])
def test_spaces_do_not_hide_what_is_too_large(name: str, place: MachineDirectory) -> None:
    write(place, name, (place.directory / name).read_bytes() + b" " * (1 << 20))
    with pytest.raises(HostError, match="too large"):
        READERS[name](place)


@each_file
@pytest.mark.parametrize("kind", ["link", "pipe", "directory", "loop"])
def test_what_is_no_file(name: str, kind: str, place: MachineDirectory, tmp_path: Path) -> None:
    """No link is followed, and nobody waits for who would write into a pipe."""
    path, elsewhere = place.directory / name, tmp_path / "elsewhere"
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
        READERS[name](place)


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
    name: str, key: str, value: object, place: MachineDirectory
) -> None:
    table = json.loads((place.directory / name).read_bytes())
    write(place, name, json.dumps({**table, key: value}).encode())
    with pytest.raises(HostError, match="is damaged"):
        READERS[name](place)


@pytest.mark.parametrize("name", list(READERS)[:3])
def test_a_value_that_is_missing(name: str, place: MachineDirectory) -> None:
    table = json.loads((place.directory / name).read_bytes())
    optional = set(BrokerAddress._field_defaults) - {"port"} if name == "bus.json" else set()
    for key in table.keys() - optional:
        rest = {other: value for other, value in table.items() if other != key}
        write(place, name, json.dumps(rest).encode())
        with pytest.raises(HostError, match="is damaged"):
            READERS[name](place)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(some.sampled_from(list(READERS)), some.data())
def test_anything_is_read_or_refused(
    place: MachineDirectory, name: str, data: some.DataObject
) -> None:
    table = {**DEFINITION._asdict(), **BUS._asdict(), **Status()._asdict()}
    keys = some.sampled_from([*table, "snapshots", "commands"])
    changed = {**table, **data.draw(some.dictionaries(keys, ANYTHING))}
    write(place, name, json.dumps(changed).encode())
    try:
        read = READERS[name](place)
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
    place: MachineDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = {path.name: path.read_bytes() for path in place.directory.glob("*.json")}
    monkeypatch.setattr(os, "fsync", full_disk)
    for write_something in (
        lambda: place.write_status(Status(VmState.RUNNING)),
        lambda: place.write_bus(BUS._replace(passcode="another")),
        lambda: place.write_snapshots([{"name": "x"}]),
        lambda: place.write_commands([{"id": "x"}]),
    ):
        with pytest.raises(OSError, match="No space"):
            write_something()
    after = {path.name: path.read_bytes() for path in place.directory.iterdir() if path.is_file()}
    assert after == before


def test_no_machine_twice(place: MachineDirectory) -> None:
    with pytest.raises(UsageError, match="already a machine a"):
        place.make(DEFINITION._replace(cpus=9), BUS)
    assert place.definition() == DEFINITION


# The lock.


def test_the_lock_is_one_s_alone(place: MachineDirectory) -> None:
    assert not place.is_locked()
    with place.held():
        assert place.is_locked()
        with (
            pytest.raises(UsageError, match="a is running"),
            MachineDirectory(place.directory).held(),
        ):
            pass
        assert place.is_locked()
    assert not place.is_locked()
    with pytest.raises(BoincvmError), place.held():
        raise BoincvmError("within")
    assert not place.is_locked()


def test_no_program_that_is_begun_has_the_lock(place: MachineDirectory) -> None:
    with place.held() as descriptor:
        assert not os.get_inheritable(descriptor)
    assert stat.S_IMODE((place.directory / "lock").stat().st_mode) == 0o600


def test_the_lock_is_no_link(place: MachineDirectory, tmp_path: Path) -> None:
    (place.directory / "lock").unlink(missing_ok=True)
    (place.directory / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostError):
        place.is_locked()
    assert not (tmp_path / "elsewhere").exists()
