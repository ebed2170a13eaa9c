"""A booted QEMU machine with its link, for tests of what passes over the link."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.program import GuestProgram, Usage
from boincvm.guestlink.status_channel import StatusMessage
from boincvm.hypervisor.contract import Checkpoint, MachineSpec
from boincvm.hypervisor.qemu.driver import QemuDriver
from boincvm.hypervisor.qemu.machine import QemuMachine
from support.observed import Observed

LIMIT = 60.0
"""Seconds to wait for a machine, at most."""
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}


def spec_in(directory: Path, image: Path) -> MachineSpec:
    """Return a small machine of the base image, its files in `directory`."""
    directory.mkdir(mode=0o700)
    files = (image / "kernel", image / "initrd", image / "root.qcow2")
    return MachineSpec(directory, *files, memory=256 << 20, cpus=1)


@asynccontextmanager
async def booted(spec: MachineSpec) -> AsyncIterator[tuple[QemuMachine, GuestLink]]:
    machine = QemuDriver("tcg").machine(spec)
    try:
        link = await GuestLink.open(await machine.start(), silence_limit=2)
        try:
            async with asyncio.timeout(LIMIT):
                await link.ready
            yield machine, link
        finally:
            link.close()
    finally:
        await machine.destroy()


class Listener(Observed):
    """Records all output and messages of a program, and grants credit unless `grants` is off."""

    def __init__(self) -> None:
        super().__init__()
        self.program: GuestProgram | None = None
        self.grants = True
        self.output = {"stdout": bytearray(), "stderr": bytearray()}
        self.messages: list[StatusMessage] = []
        self.status_bytes = 0
        self.usage: list[Usage] = []
        self.changes: list[tuple[str, int, bytes]] = []

    def start(
        self, link: GuestLink, script: str, *, status_channel: bool = False, usage: bool = False
    ) -> GuestProgram:
        """Run the Python source `script` in the guest."""
        self.program = GuestProgram(
            link,
            ["/usr/bin/python3.11", "-I", "-S", "-u", "-c", script],
            directory="/work",
            environment=ENVIRONMENT,
            output=self.on_output,
            on_status=self.on_messages if status_channel else None,
            on_usage=self.on_usage if usage else None,
        )
        return self.program

    def attach(self, link: GuestLink, state: dict[str, object]) -> GuestProgram:
        self.program = GuestProgram.attached(
            link,
            state,
            output=self.on_output,
            on_status=self.on_messages,
            on_usage=self.on_usage,
            on_change=self.on_change,
        )
        return self.program

    def on_output(self, stream: str, data: bytes) -> None:
        self.output[stream] += data
        self._grant(len(data))

    def on_messages(self, messages: object, count: int) -> None:
        assert isinstance(messages, list)
        self.messages += messages
        self.status_bytes += count
        self._grant(count)

    def _grant(self, count: int) -> None:
        if self.grants and self.program is not None:
            self.program.grant(count)
        self._news.set()

    def on_usage(self, usage: Usage) -> None:
        self.usage.append(usage)
        self._news.set()

    def on_change(self, path: str, mtime_ns: int, tail: bytes) -> None:
        self.changes.append((path, mtime_ns, tail))
        self._news.set()


NUMBERS = itertools.count(1)


def through_a_file(state: dict[str, object]) -> dict[str, object]:
    return cast(dict[str, object], json.loads(json.dumps(state)))


async def save(
    machine: QemuMachine, link: GuestLink, listener: Listener
) -> tuple[dict[str, object], dict[str, object], Checkpoint]:
    """Save the machine and return what another process needs; this process keeps nothing of it."""
    assert listener.program is not None
    await link.quiesce(LIMIT)
    states = link.state(), listener.program.state()
    checkpoint = await machine.save(next(NUMBERS))
    link.close()
    return through_a_file(states[0]), through_a_file(states[1]), checkpoint


@asynccontextmanager
async def restored(
    spec: MachineSpec, link_state: dict[str, object], checkpoint: Checkpoint
) -> AsyncIterator[tuple[QemuMachine, GuestLink]]:
    """Run the machine that `save` left; its agent still waits for `attach`."""
    machine = QemuDriver("tcg").restore(spec, checkpoint)
    try:
        channel = await machine.start()
        link = await GuestLink.open(channel, silence_limit=2, attach_to=link_state)
        try:
            yield machine, link
        finally:
            link.close()
    finally:
        await machine.stop()
