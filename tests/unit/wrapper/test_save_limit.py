"""A save that the client does not wait for: its machines are killed, whatever they were told."""

import asyncio
from typing import cast
from unittest.mock import Mock

import pytest

from boincvm.boinc import Client, Event
from boincvm.hypervisor.uninterrupted import uninterrupted
from boincvm.wrapper import run
from boincvm.wrapper.run import ClientRun
from boincvm.wrapper.tasks.sequence import TaskSequence

pytestmark = pytest.mark.timeout(30)

LIMIT = 10.0


class SlowSteps:
    """Stands for a job's machines, whose hypervisor saves them until they are killed."""

    def __init__(self) -> None:
        self.is_killed = asyncio.Event()
        self.begun = asyncio.Event()

    async def save(self) -> None:
        self.begun.set()
        await uninterrupted(self._wait())

    async def _wait(self) -> None:
        await self.is_killed.wait()

    async def kill_machines(self) -> None:
        self.is_killed.set()


class AbortingClient:
    """Stands for a client that aborts the task once its machines are being saved."""

    def __init__(self, steps: SlowSteps, *, aborts: bool) -> None:
        self._steps, self._aborts = steps, aborts

    async def next_event(self) -> Event:
        await self._steps.begun.wait()
        if not self._aborts:
            await asyncio.Event().wait()
        return Event.ABORT


@pytest.mark.parametrize("aborts", [False, True])
async def test_what_is_being_saved_is_killed(
    monkeypatch: pytest.MonkeyPatch, *, aborts: bool
) -> None:
    monkeypatch.setattr(run, "SAVE_LIMIT", LIMIT if aborts else 0.05)
    steps = SlowSteps()
    client = cast(Client, AbortingClient(steps, aborts=aborts))
    client_run = ClientRun(client, cast(TaskSequence, steps), Mock(), Mock())
    async with asyncio.timeout(LIMIT / 2):
        assert await client_run._save_unless_aborted() is not aborts
    assert steps.is_killed.is_set()
