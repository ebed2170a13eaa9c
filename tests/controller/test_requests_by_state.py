"""A request to a machine is answered or refused at once, whatever state the machine is in."""

import asyncio
import json
import os
import signal
import time
import xmlrpc.client
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from boincvm.client.address import ControllerAddress
from boincvm.client.client import Client
from boincvm.controller.protocol.vm_state import MEANINGS, Requests, VmState
from boincvm.errors import BoincvmError
from boincvm.guestlink.terminal.protocol import shell_argv
from boincvm.shim.machine_directory import MachineDirectory
from support.controller.faces import BEARER, LIMIT, TOKEN, Faces
from support.controller.faked import fake_machines  # noqa: F401 - a fixture
from support.host_delays import host_delays

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("fake_machines")]
PROMPT = 5.0
"""Seconds within which a refusal has come, beside those for which the host has kept us waiting."""


@asynccontextmanager
async def prompt() -> AsyncIterator[None]:
    with host_delays() as delays:
        begin = time.monotonic()
        async with asyncio.timeout(LIMIT):
            yield
        took = time.monotonic() - begin
    assert took - delays.seconds < PROMPT


class Asked:
    """A served controller with one machine `m`, and requests to it."""

    def __init__(self, faces: Faces) -> None:
        self.faces = faces
        self.client = Client(ControllerAddress(None, "127.0.0.1", faces.port, TOKEN))
        self.starting: asyncio.Task[object] | None = None

    @property
    def location(self) -> MachineDirectory:
        return MachineDirectory(self.faces.directory / "controller" / "machines" / "m")

    async def do(self, operation: str, **asked: object) -> Any:
        reported = (await self.faces.call(operation, vms="m", **asked)).result
        (outcome,) = reported["outcomes"].values()
        return outcome

    async def until_state(self, state: str) -> None:
        async with asyncio.timeout(30):
            async for event in self.faces.controller.events.follow(0):
                if event.kind == "vm_state" and event.more.get("state") == state:
                    return

    async def bring_to(self, state: VmState) -> None:
        labels = {"fake": "hangs-in-start"} if state is VmState.STARTING else {}
        await self.faces.call("create", name="m", memory="256M", display=True, labels=labels)
        if state is VmState.POWERED_OFF:
            return
        self.starting = asyncio.ensure_future(self.do("start"))
        if state is VmState.STARTING:
            await self.until_state("starting")
            await self.faces.controller.hub.registry.wait_for("m")
            return
        assert await self.starting == {"state": "running"}
        if state is VmState.ABORTED:
            self.kill()
            await self.until_state("aborted")
        elif state is VmState.STUCK:
            machine = self.faces.controller.machines.find("m")
            assert machine is not None
            machine.set_silent(is_silent=True)
        else:
            await self.do({VmState.PAUSED: "pause", VmState.SAVED: "save"}[state])

    def kill(self) -> None:
        os.kill(self.location.status().pid, signal.SIGKILL)

    # What can be asked; each gives what it was told, and raises BoincvmError where it is refused.

    async def ping(self) -> str:
        reported = (await self.faces.call("ping", vms="m", timeout=60)).result
        if "m" in reported["refused"]:
            assert reported["answers"] == {"m": None}
            raise _error(reported["refused"]["m"])
        return str(reported["answers"]["m"])

    async def exec(self) -> str:
        return await asyncio.to_thread(self._run, argv=["true"])

    async def shell(self) -> str:
        return await asyncio.to_thread(self._run, argv=shell_argv((24, 80), ()), keep_input=True)

    def _run(self, **asked: object) -> str:
        _, output = self.client.run(vms="m", **asked)
        *_, last = output
        answer: Any = last["command"]["answers"]["m"]  # type: ignore[index,call-overload]
        raise BoincvmError(answer["why"] or answer["error"])

    async def put(self) -> str:
        def put() -> Any:
            mode = {"is_tree": False, "mode": 0o600}
            return self.client.put("m", "x", b"x", 1, transfer="p", **mode)["outcomes"]  # type: ignore[arg-type]

        outcome = (await asyncio.to_thread(put))["m"]
        raise _error(outcome["error"])

    async def get(self) -> str:
        def get() -> str:
            with self.client.get("m", "x", transfer="t"):
                return "gotten"

        return await asyncio.to_thread(get)

    async def xml_rpc(self, method: str, *given: object) -> Any:
        body = xmlrpc.client.dumps(given, method).encode()
        answer = await self.faces.ask("POST", "/RPC2", {**BEARER, "Content-Type": "text/xml"}, body)
        try:
            ((reported,), _) = xmlrpc.client.loads(answer.body)
        except xmlrpc.client.Fault as fault:
            message, _, hint = fault.faultString.partition("; ")
            raise BoincvmError(message, hint=hint) from fault
        return reported

    async def run_cmd(self) -> str:
        command = await self.xml_rpc("runCmd", "m", "true")
        await self.faces.controller.hub.commands.find(command).finished()
        reported = await self.xml_rpc("getCmdResults", command)
        assert reported["finished"] is True
        assert reported["exitCodeOrSignal"] == 127
        raise BoincvmError(reported["err"])

    async def old_ping(self) -> str:
        return str(await self.xml_rpc("ping", "m", 60.0))

    async def cp_to(self) -> str:
        (self.faces.directory / "x").write_text("x")
        return str(await self.xml_rpc("cpFileToVM", "m", "x", "x"))

    async def cp_from(self) -> str:
        return str(await self.xml_rpc("cpFileFromVM", "m", "x", "y"))

    async def console(self) -> str:
        address = f"ws://127.0.0.1:{self.faces.port}/api/console/m"
        async with connect(address, additional_headers=BEARER) as socket:
            try:
                await socket.recv()
            except ConnectionClosed as closed:
                reason = closed.rcvd.reason if closed.rcvd else ""
                raise BoincvmError(reason) from closed
        return "there"


def _error(table: Mapping[str, Any]) -> BoincvmError:
    return BoincvmError(table["message"], hint=table["hint"])


PINGS = ("ping", "old_ping")
WITH_HINT = ("ping", "exec", "shell", "put", "get", "old_ping", "run_cmd", "cp_from")
REQUESTS = (*WITH_HINT, "cp_to", "console")
REFUSED = {
    VmState.POWERED_OFF: ("the machine m is powered off", "boincvm start m"),
    VmState.SAVED: ("the machine m is saved", "boincvm start m"),
    VmState.ABORTED: ("the machine m is aborted: its shim was killed", "boincvm start m"),
    VmState.PAUSED: ("the machine m is paused", "boincvm resume m"),
    VmState.STUCK: ("the machine m is stuck", "boincvm reset m"),
}


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Asked]:
    async with Faces.open(tmp_path) as faces:
        await faces.serve_tcp()
        made = Asked(faces)
        try:
            yield made
        finally:
            await faces.call("remove", vms="**", force=True)
            if made.starting is not None:
                await asyncio.wait((made.starting,))


def test_each_state_has_a_meaning() -> None:
    assert set(MEANINGS) == set(VmState)
    for state, meaning in MEANINGS.items():
        is_refused = meaning.requests is Requests.REFUSED
        assert is_refused is bool(meaning.remedy), state
        assert is_refused is (state in {*REFUSED, VmState.STOPPING}), state
        assert is_refused or not meaning.is_off, state


@pytest.mark.parametrize("state", REFUSED)
async def test_what_cannot_be_answered_is_refused_at_once(state: VmState, asked: Asked) -> None:
    await asked.bring_to(state)
    message, hint = REFUSED[state]
    for name in REQUESTS:
        request: Callable[[], Awaitable[str]] = getattr(asked, name)
        async with prompt():
            with pytest.raises(BoincvmError) as refused:
                await request()
        if name == "console" and not state.is_off:
            continue  # its screen stands still, and can be seen
        assert refused.value.message.startswith(message), name
        assert name not in WITH_HINT or hint in refused.value.hint, name
    await events_are_told(asked)
    if state is VmState.STUCK:
        assert "is stuck" in (await asked.do("start"))["error"]["message"]
    else:
        assert await asked.do("start") == {"state": "running"}


async def test_what_waits_for_a_machine_fails_when_its_shim_dies(asked: Asked) -> None:
    await asked.bring_to(VmState.STARTING)
    for name in PINGS:  # its shim answers for it
        assert await getattr(asked, name)()
    waiting = {
        name: asyncio.ensure_future(getattr(asked, name)())
        for name in (*WITH_HINT, "cp_to")
        if name not in PINGS
    }
    begun = 0
    async with prompt():
        async for event in asked.faces.controller.events.follow(0):
            begun += event.kind == "command_started"
            if begun == 3:
                break
    assert not any(task.done() for task in waiting.values())
    asked.kill()
    async with prompt():
        await asyncio.wait(waiting.values())
    for name, task in waiting.items():
        error = task.exception()
        assert isinstance(error, BoincvmError), name
        assert "the machine" in error.message, name
        assert "aborted: its shim was killed" in error.message, name
    assert asked.starting is not None
    assert "did not start" in (await asked.starting)["error"]["message"]  # type: ignore[index]


async def test_a_command_for_several_says_who_was_refused(asked: Asked) -> None:
    await asked.bring_to(VmState.PAUSED)
    await asked.faces.add_guest("n")
    await asked.faces.call("create", name="off", memory="256M")
    begun = (await asked.faces.call("exec", vms="**", argv=["true"])).result
    # Of a pattern those are meant that are there.
    assert begun["vms"] == ["n", "m"]
    await asked.faces.controller.hub.commands.find(begun["command"]).finished()
    reported = (await asked.faces.call("command", id=begun["command"])).result["answers"]
    assert (reported["m"]["state"], reported["m"]["why"]) == ("refused", "the machine m is paused")
    assert reported["n"]["state"] == "ended"
    # That nobody is needed of whom no answer comes.
    first = (await asked.faces.call("exec", vms="**", argv=["true"], first=1)).result
    await asked.faces.controller.hub.commands.find(first["command"]).finished()
    answers = (await asked.faces.call("command", id=first["command"])).result["answers"]
    assert answers["n"]["state"] == "ended"
    none = (await asked.faces.call("exec", vms="off", argv=["true"])).error
    assert none["code"] == 210


async def events_are_told(asked: Asked) -> None:
    address = f"ws://127.0.0.1:{asked.faces.port}/api/events"
    async with connect(address, additional_headers=BEARER) as socket, prompt():
        assert json.loads(await socket.recv())["number"] >= 1
