"""A machine writes many files, its hypervisor is killed, and what it had synced is compared.

By hand, any number of rounds: `python tests/support/controller/killed_disk.py ROUNDS [SEED]`.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from boincvm.controller.commands.command import Command
from boincvm.controller.protocol.vm_state import VmState
from boincvm.image.store import ImageStore
from support.controller.controlled import LIMIT, Controlled, children_of, controlled

VM = "a"
_CONTENT = """
import os, sys
def content(folder, number):
    return (f"{folder}.{number} ".encode() * 4000)[:1 + number * 977 % 20000]
"""
_WRITES = f"""{_CONTENT}
folder = sys.argv[1]
number = 0
while True:
    directory = f"{{folder}}/{{number % 7}}"
    os.makedirs(directory, exist_ok=True)
    with open(f"{{directory}}/{{number}}", "wb") as file:
        file.write(content(folder, number))
        file.flush()
        os.fsync(file.fileno())
    print(number, flush=True)
    with open(f"other.{{number % 50}}", "wb") as file:  # written whenever the kernel likes
        file.write(bytes(5000))
    if number % 10 == 9:
        os.rename(f"other.{{number % 50}}", "renamed")
        os.remove(f"other.{{(number - 3) % 50}}")
    number += 1
"""
_COMPARES = f"""{_CONTENT}
for folder, count in zip(sys.argv[1::2], map(int, sys.argv[2::2])):
    for number in range(count):
        try:
            with open(f"{{folder}}/{{number % 7}}/{{number}}", "rb") as file:
                found = file.read()
        except OSError as error:
            print(folder, number, error.strerror)
        else:
            if found != content(folder, number):
                print(folder, number, "has other bytes")
print("compared")
"""


class Writing:
    """A program in the machine that writes and syncs files, and prints their numbers."""

    def __init__(self, asked: Controlled, command: Command) -> None:
        self._asked = asked
        self._command = command

    async def count(self) -> int:
        """Return how many files are known to have been synced."""
        reported = await self._asked("command", id=self._command.id, output=True)
        return str(reported["answers"][VM]["output"]["stdout"]).count("\n")

    async def until(self, count: int) -> None:
        """Wait until that many have been synced."""
        async with asyncio.timeout(LIMIT):
            while await self.count() < count:
                await self._command.changed()


async def write_and_kill(asked: Controlled, folder: str, count: int, *, victim: str) -> int:
    """Kill the `victim`, "shim" or "hypervisor", once `count` files have been synced.

    Returns how many had been by then. The machine has ended.
    """
    machine = asked.controller.machines.find(VM)
    assert machine is not None
    shim = asked.shim(VM)
    (hypervisor, *_) = children_of(shim)
    writing = Writing(asked, await asked.begin(VM, "python3", "-c", _WRITES, folder))
    await writing.until(count)
    os.kill(shim if victim == "shim" else hypervisor, signal.SIGKILL)
    async with asyncio.timeout(LIMIT):
        await machine.until(lambda: machine.state is VmState.ABORTED and not machine.has_shim)
    return await writing.count()


async def compare(asked: Controlled, counts: dict[str, int]) -> str:
    """Return what is wrong with the files in each folder, of which so many had been synced."""
    arguments = [word for folder, count in counts.items() for word in (folder, str(count))]
    ((code, output),) = (await asked.run(VM, "python3", "-c", _COMPARES, *arguments)).values()
    assert code == 0, output
    assert output.endswith("compared\n"), output
    return output.removesuffix("compared\n")


def check_disk(asked: Controlled, directory: Path, *, was_shut_down: bool) -> str:
    """Check the file system of the machine, which has ended, on a copy in `directory`.

    Its journal is replayed first unless the machine was shut down. Returns what e2fsck complains of
    then, "" for nothing.
    """
    location = asked.directory(VM)
    root = ImageStore().root / "objects" / location.status().image / "root.qcow2"
    layers = [root, *(location.disk / name for name in location.status().layers)]
    raw = directory / "checked.raw"
    try:
        convert = ["qemu-img", "convert", "-q", "-O", "raw", f"json:{json.dumps(_node(layers))}"]
        subprocess.run([*convert, str(raw)], check=True, timeout=LIMIT)
        if not was_shut_down:
            replay = ["e2fsck", "-E", "journal_only", "-p", str(raw)]
            subprocess.run(replay, check=True, stdout=subprocess.DEVNULL, timeout=LIMIT)
        check = subprocess.run(
            ["e2fsck", "-f", "-n", str(raw)], capture_output=True, text=True, timeout=LIMIT
        )
        return "" if check.returncode == 0 else f"{check.returncode}: {check.stdout}"
    finally:
        raw.unlink(missing_ok=True)


def _node(layers: Sequence[Path]) -> dict[str, object]:
    *below, path = layers
    file = {"driver": "file", "filename": str(path)}
    return {"driver": "qcow2", "file": file, "backing": _node(below) if below else None}


async def _play(rounds: int, seed: int) -> None:
    chosen = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        async with controlled(Path(name) / "c") as asked:
            await asked("create", name=VM, memory="256M")
            assert await asked.outcome("start", VM) == {"state": "running"}
            counts: dict[str, int] = {}
            for number in range(rounds):
                count, victim = chosen.randrange(20, 300), chosen.choice(["shim", "hypervisor"])
                folder = f"folder{number}"
                counts[folder] = await write_and_kill(asked, folder, count, victim=victim)
                errors = check_disk(asked, Path(name), was_shut_down=False)
                assert await asked.outcome("start", VM) == {"state": "running"}
                wrong = await compare(asked, counts)
                print(f"{number} {victim} {counts[folder]}: {wrong or 'all'} {errors or 'clean'}")
            assert await asked.outcome("stop", VM) == {"state": "powered_off"}
            print(check_disk(asked, Path(name), was_shut_down=True) or "clean")


if __name__ == "__main__":
    asyncio.run(_play(int(sys.argv[1]), int((*sys.argv, "1")[2])))
