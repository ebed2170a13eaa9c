"""Run by a test: a controller that is killed while it transfers a file to or from a machine.

    python -m support.controller.killed_controller DIRECTORY put|get OFFSET TRANSFER FILE

The controller of DIRECTORY puts FILE into the machine `a` as `large`, or gets it from there; at
byte OFFSET it is killed. TRANSFER: the transfer's id, or an empty text to have one chosen.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from boincvm.controller.controller import Controller, run_controller
from boincvm.controller.files.spool import Spooled

LIMIT = 100.0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def content(file: Path) -> AsyncIterator[bytes]:
    yield file.read_bytes()


async def put(controller: Controller, file: Path, offset: int, transfer: str | None) -> None:
    read = Spooled.read

    def read_so_far(self: Spooled, begin: int, length: int) -> bytes:
        if begin >= offset:
            die()
        return read(self, begin, length)

    Spooled.read = read_so_far  # type: ignore[method-assign]
    await controller.files.put(
        "a", "large", content(file), is_tree=False, mode=0o600, transfer=transfer
    )


async def get(controller: Controller, offset: int, transfer: str | None) -> None:
    gotten = await controller.files.get("a", "large", transfer=transfer)
    come = 0
    async for data in gotten.chunks:
        come += len(data)
        if come >= offset:
            die()


async def main(directory: Path, way: str, offset: int, transfer: str | None, file: Path) -> None:
    async with asyncio.timeout(LIMIT), run_controller(directory) as controller:
        await controller.hub.registry.wait_for("a")
        if way == "put":
            await put(controller, file, offset, transfer)
        else:
            await get(controller, offset, transfer)


if __name__ == "__main__":
    location, way, number, name, source = sys.argv[1:]
    asyncio.run(main(Path(location), way, int(number), name or None, Path(source)))
