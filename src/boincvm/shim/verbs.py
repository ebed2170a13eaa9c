"""The requests that a shim answers on the bus."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext

from boincvm.controller.protocol.requests import Reply
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import BoincvmError, HostError, MachineStateError, UsageError, host_error
from boincvm.node.responder import Verb
from boincvm.shim.machine import ShimMachine

LONGEST_STOP = 3600.0
"""Seconds that a guest may be given to shut down."""

ENDS = ("stop", "power_off", "save")
"""Requests after which the machine has ended."""

_HURRIED = {
    "pause": "the machine is paused",
    "resume": "the machine is resumed",
    "save": "the machine is saved for the last time",
    "stop": "the machine is ended",
}
"""Requests that wait for no snapshot that itself waits for those of other machines, and why."""

Act = Callable[[Mapping[str, object]], Awaitable[Mapping[str, object]]]


class ShimVerbs:
    """The shim's request handlers.

    They run one after the other, so that nothing is paused while it is being saved.
    """

    def __init__(self, machine: ShimMachine) -> None:
        self._machine = machine
        self._turn = asyncio.Lock()
        self._host_ends = False

    def table(self) -> dict[str, Verb]:
        """Return the handlers for the Responder, by name."""
        acts: dict[str, Act] = {
            "pause": lambda _: self._simply(self._machine.pause),
            "resume": lambda _: self._simply(self._machine.resume),
            "save": lambda _: self._simply(self._machine.save),
            "power_off": lambda _: self._simply(self._machine.power_off),
            "stop": self._stop,
            "snapshot_take": self._snapshot_take,
            "snapshot_remove": self._snapshot_remove,
        }
        return {name: self._in_turn(name, act) for name, act in acts.items()}

    def _in_turn(self, name: str, act: Act) -> Verb:
        async def verb(arguments: Mapping[str, object], _data: bytes) -> Reply:
            at_once = self._needs_no_turn(name)
            async with nullcontext() if at_once else self._taken(_HURRIED.get(name)):
                result: Mapping[str, object] = {}
                try:
                    if not self._has_ended(name) and not self._is_done(name):
                        result = await act(arguments)
                except OSError as error:
                    raise host_error("the host's system refused", error) from error
            return Reply({**result, "state": str(self._machine.status.state)})

        return verb

    def _needs_no_turn(self, name: str) -> bool:
        """Tell whether a request does not wait for the one that is being handled."""
        if name == "power_off":
            return True
        if not self._machine.is_waiting_for_turn:
            return False
        # That is a snapshot that has done nothing yet. It does not begin within these requests,
        # for they do not wait for anything.
        return name == "snapshot_remove" or self._is_done(name)

    def _is_done(self, name: str) -> bool:
        """Tell whether a machine is resumed that runs, which must not end a snapshot's wait."""
        return (
            name == "resume"
            and self._machine.is_waiting_for_turn
            and self._machine.status.state is VmState.RUNNING
        )

    @asynccontextmanager
    async def _taken(self, hurry: str | None) -> AsyncIterator[None]:
        """Wait for the turn and hold it; `hurry`: why no snapshot may wait long before that."""
        with nullcontext() if hurry is None else self._machine.hurried(hurry):
            await self._turn.acquire()
        try:
            yield
        finally:
            self._turn.release()

    def _has_ended(self, name: str) -> bool:
        """Return True if the machine ended while `name` waited for its turn.

        Raises MachineStateError if `name` is not a request to end it; HostError if it is a snapshot
        and the host is shutting down.
        """
        state = self._machine.status.state
        if state.is_off and name not in ENDS:
            raise MachineStateError(
                f"the machine has ended in the meantime: it is {state.label}", hint="start it again"
            )
        if self._host_ends and name == "snapshot_take":
            raise HostError("the host is shutting down, so no snapshot is taken")
        return state.is_off

    async def _simply(self, act: Callable[[], Awaitable[None]]) -> Mapping[str, object]:
        await act()
        return {}

    async def _stop(self, given: Mapping[str, object]) -> Mapping[str, object]:
        within = given.get("within", 20.0)
        if not isinstance(within, int | float) or not 0 <= within <= LONGEST_STOP:
            raise UsageError(f"the time to shut down must be 0 to {LONGEST_STOP:g} s")
        await self._machine.stop(within)
        return {}

    async def _snapshot_take(self, given: Mapping[str, object]) -> Mapping[str, object]:
        name, description = given.get("name"), given.get("description", "")
        if not isinstance(description, str) or not (name is None or isinstance(name, str)):
            raise UsageError("a snapshot's name and description must be strings")
        chosen, saved = await self._machine.snapshot(name, description)
        checkpoint = saved.checkpoint
        return {"snapshot": chosen, "written": checkpoint.written, "pause": checkpoint.pause}

    async def _snapshot_remove(self, given: Mapping[str, object]) -> Mapping[str, object]:
        name = given.get("name")
        if not isinstance(name, str):
            raise UsageError("name the snapshot to remove")
        self._machine.remove_snapshot(name)
        return {}

    async def end_with_host(self) -> None:
        """End the machine because the host is shutting down, after requests that came before."""
        self._host_ends = True
        async with self._taken("the host is shutting down"):
            await self._machine.end_with_host()


def failure(error: BaseException) -> BoincvmError:
    """Convert what ended a machine's start to a BoincvmError."""
    if isinstance(error, BoincvmError):
        return error
    return HostError(f"the host's system refused: {error}")
