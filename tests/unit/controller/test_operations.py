"""Each operation with arguments of every kind returns JSON or raises a proper error."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from boincvm import __version__
from boincvm.controller.arguments import Kind
from boincvm.controller.controller import Controller, run_controller
from boincvm.controller.operations import OPERATIONS, call
from boincvm.controller.protocol.guest import Guest
from boincvm.errors import BoincvmError, UsageError
from boincvm.json_value import LARGEST
from support.anything import ANYTHING

pytestmark = pytest.mark.timeout(200)
LIKELY: dict[Kind, list[object]] = {
    Kind.TEXT: ["a", "g", "all", "**", "none", "mine", "!site", "x>=1", "..", "", "512M", "é\n"],
    Kind.WHOLE: [0, 1, 9, 15, 64, 65, 10_000, LARGEST],
    Kind.NUMBER: [0, 0.001, 0.01],
    Kind.FLAG: [True, False],
    Kind.TEXTS: [[], ["true"], [""], ["x" * 70_000], ["a", "é"]],
    Kind.TABLE: [{}, {"a": "b"}, {"": ""}, {"a=b": "c"}, {"x" * 300: ""}],
}


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[Controller]:
    """Return a controller with a machine `a` that is off, and a guest `g` that never answers."""
    async with run_controller(tmp_path / "c") as made:
        await call(made, "create", {"name": "a", "memory": "256M", "labels": {"site": "cern"}})
        made.hub.registry.hello(Guest("g", "g", capabilities=frozenset(("run",)), instance="1"))
        yield made


async def reported(controller: Controller, name: str, arguments: dict[str, object]) -> None:
    """Return the error; anything but a BoincvmError is a bug."""
    try:
        result = await call(controller, name, arguments)
    except BoincvmError as error:
        json.dumps([error.message, error.hint], ensure_ascii=False).encode()
        return
    json.dumps(result, ensure_ascii=False, allow_nan=False).encode()


async def test_what_is_answered_is_in_the_store(controller: Controller, tmp_path: Path) -> None:
    """A controller may be killed as soon as a client has its answer."""
    await call(controller, "exec", {"vms": "g", "argv": ["true"], "id": "kept"})
    with closing(sqlite3.connect(tmp_path / "c" / "store.sqlite")) as other:
        assert "kept" in str(other.execute("SELECT * FROM commands").fetchall())


async def test_each_with_values_of_each_kind(controller: Controller) -> None:
    """Try all values of each parameter with the first of the others'."""
    for operation in OPERATIONS.values():
        if operation.name in ("start", "reset"):
            continue  # which wait for a machine
        usual = {one.name: LIKELY[one.kind][0] for one in operation.parameters if one.is_required}
        if operation.name == "ping":
            usual["timeout"] = 0  # and not for 5 s each time
        for parameter in operation.parameters:
            for value in (None, *LIKELY[parameter.kind], *chain(*LIKELY.values())):
                await reported(controller, operation.name, {**usual, parameter.name: value})
        await reported(controller, operation.name, {"no": "such"})
        if controller.machines.find("a") is None:
            await call(controller, "create", {"name": "a", "memory": "256M"})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(some.sampled_from(sorted(OPERATIONS)), some.data())
def test_each_with_anything(name: str, data: some.DataObject) -> None:
    class Nothing:
        """An object that refuses every access: errors must be detected before."""

        def __getattr__(self, part: str) -> object:
            raise UsageError(f"{part} was used")

    known = [one.name for one in OPERATIONS[name].parameters]
    keys = some.sampled_from(known) if known else some.text()
    given_all = data.draw(some.dictionaries(keys, ANYTHING))
    asyncio.run(reported(Nothing(), name, given_all))  # type: ignore[arg-type]


async def test_what_there_is_not(controller: Controller) -> None:
    for name in ("", "LIST", "__class__", "x" * 10_000, "\ud800"):
        with pytest.raises(UsageError, match="there is no operation") as error:
            await call(controller, name, {})
        assert len(error.value.message) < 500
        error.value.message.encode()


async def test_what_changes_nothing(controller: Controller) -> None:
    assert await call(controller, "version", {}) == {"version": __version__}
    before = {
        path: path.read_bytes() for path in controller.directory.rglob("*.json") if path.is_file()
    }
    number = controller.events.last
    for operation in OPERATIONS.values():
        if not operation.changes:
            usual = {one.name: "a" for one in operation.parameters if one.is_required}
            await reported(controller, operation.name, usual)
    assert controller.events.last == number
    assert before == {path: path.read_bytes() for path in before}


async def test_events_in_pieces(controller: Controller) -> None:
    for number in range(10):
        controller.events.add("kind", None, str(number))
    seen: list[object] = []
    after = 0
    while True:
        found = await call(controller, "events", {"after": after, "most": 3})
        events = found["events"]
        assert isinstance(events, list)
        assert found["last"] == controller.events.last
        if not events:
            break
        assert len(events) <= 3
        seen += [event["text"] for event in events if isinstance(event, dict)]
        last = events[-1]
        assert isinstance(last, dict)
        after = int(str(last["number"]))
    assert seen[-10:] == [str(number) for number in range(10)]
    assert (await call(controller, "events", {"after": LARGEST}))["events"] == []
    assert (await call(controller, "events", {"most": 0}))["events"] == []


async def test_commands_that_have_ended_or_not(controller: Controller) -> None:
    for number in range(3):
        await call(controller, "exec", {"vms": "g", "argv": ["x"], "id": str(number)})
    await call(controller, "cancel", {"id": "1"})

    async def ids(**arguments: object) -> list[str]:
        found = (await call(controller, "commands", arguments))["commands"]
        assert isinstance(found, list)
        return [str(one["id"]) for one in found if isinstance(one, dict)]

    assert await ids() == ["0", "1", "2"]
    assert await ids(finished=None) == ["0", "1", "2"]
    assert await ids(finished=True) == ["1"]
    assert await ids(finished=False) == ["0", "2"]
    (table,) = (await call(controller, "list", {"vms": "g"}))["vms"]  # type: ignore[misc]
    assert isinstance(table, dict)
    assert table["commands"] == 2


async def test_who_never_answers(controller: Controller) -> None:
    assert await call(controller, "ping", {"vms": "**", "timeout": 0.01}) == {
        "answers": {"g": None},
        "refused": {},
    }
    assert await call(controller, "ping", {"vms": "none", "timeout": 0}) == {
        "answers": {},
        "refused": {},
    }
