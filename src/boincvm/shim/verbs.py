"""The requests that a shim answers on the bus."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext

from boincvm.controller.protocol.requests import Reply
from boincvm.errors import BoincvmError, HostError, MachineStateError, UsageError, host_error
from boincvm.node.responder import Verb
from boincvm.shim.machine import ShimMachine

LONGEST_STOP = 3600.0
"""Seconds that a guest may be given to shut down."""

ENDS = ("stop", "power_off", "save")
"""Requests after which the machine has ended."""

Act = Callable[[Mapping[str, object]], Awaitable[Mapping[str, object]]]


class ShimVerbs:
    """The shim's request handlers.

    They run one after the other, so that nothing is paused while it is being saved.
    """

    def __init__(self, machine: ShimMachine) -> None:
        self._machine = machine
        self._turn = asyncio.Lock()

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
            # power_off does not wait for the request being handled.
            async with nullcontext() if name == "power_off" else self._turn:
                result: Mapping[str, object] = {}
                try:
                    if not self._has_ended(name):
                        result = await act(arguments)
                except OSError as error:
                    raise host_error("the host's system refused", error) from error
            return Reply({**result, "state": str(self._machine.status.state)})

        return verb

    def _has_ended(self, name: str) -> bool:
        """Return True if the machine ended while `name` waited for its turn.

        Raises MachineStateError if `name` is not a request to end it.
        """
        state = self._machine.status.state
        if state.is_off and name not in ENDS:
            raise MachineStateError(
                f"the machine has ended in the meantime: it is {state.label}", hint="start it again"
            )
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
        """End the machine because the host is shutting down, after the current request."""
        async with self._turn:
            await self._machine.end_with_host()


def failure(error: BaseException) -> BoincvmError:
    """Convert what ended a machine's start to a BoincvmError."""
    if isinstance(error, BoincvmError):
        return error
    return HostError(f"the host's system refused: {error}")
