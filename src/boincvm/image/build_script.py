"""Run a recipe's script as an image is built, in a machine without a network.

It runs as root in what the image has by then: configured packages, packages of PyPI, own files. The
changes come back as those of packages' scripts do (configure.py). Nothing of it runs on this
computer.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from boincvm.durations import format_duration
from boincvm.errors import ImageBuildError
from boincvm.guestlink.program import ProgramEnd
from boincvm.hypervisor.architecture import Architecture
from boincvm.image import disk
from boincvm.image.configure import (
    ENVIRONMENT,
    ChangingMachine,
    Log,
    change_in_machine,
)
from boincvm.image.machine import BootMachine, RunProgram
from boincvm.image.tree import Attributes, Tree
from boincvm.sizes import format_size

_SCRIPT = "var/tmp/boincvm-script"
"""The script in the machine: nothing of this directory goes into an image."""
_SAVING_LIMIT = 900.0
"""Seconds for booting the machine, and for copying the changes out of it."""
_FULL = 4 << 20
"""Bytes: a disk with less free space counts as full."""
_OWN_SPACE = 48 << 20
"""Bytes of the disk that the file system needs for itself."""
_LONGEST_OUTPUT = 64
_BLOCK = 4096
_INODE_RATIO = 16384
_OWN_INODES = 4096
"""Files that a script may make on any disk."""
_ENVIRONMENT = {
    **ENVIRONMENT,
    "DEBIAN_FRONTEND": "noninteractive",
    "LC_ALL": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "TERM": "dumb",
}
_RUN = f"""\
set -eu
umask 022
date -s "@$((SOURCE_DATE_EPOCH + 86400))" >/dev/null
cd /root
exec /{_SCRIPT} </dev/null 2>&1
"""
_CLEAN = ("sh", "-c", "find /tmp /var/tmp -xdev -mindepth 1 -delete; sync")
_FREE = ("stat", "-f", "-c", "%f %S", "/")


class BuildScript(NamedTuple):
    """A script that runs as an image is built."""

    text: bytes
    limit: float
    """Seconds."""
    disk: int
    """Bytes that it may write."""


def run_script(
    tree: Tree,
    script: BuildScript,
    kernel: Path,
    initrd: Path,
    directory: Path,
    boot: BootMachine,
    on_line: Callable[[str], None],
    architecture: Architecture,
) -> None:
    """Run the script in a machine that `boot` starts from `tree`, and take what it has changed.

    `directory` takes temporary files; `on_line` is called with each line that it writes. Raises
    ImageBuildError, HostDiskFullError, HypervisorError.
    """

    async def work(run: RunProgram) -> None:
        log = Log(on_line)
        try:
            async with asyncio.timeout(script.limit):
                end = await run(["sh", "-c", _RUN], _ENVIRONMENT, log.receive)
        except TimeoutError:
            raise _error(
                f"the script has not ended within {format_duration(script.limit)}",
                "let it do less, or give it more time: limit in [script]",
                log,
            ) from None
        await _output(run, _CLEAN)
        if await _free_space(run) < _FULL:
            raise _error(
                f"the script has filled the {format_size(script.disk)} of disk that it may write",
                "let it write less, or give it more: disk in [script]",
                log,
            )
        if end.code != 0:
            status = f"signal {end.signal}" if end.code is None else f"{end.code}"
            raise _error(f"the script ended with {status}", "", log)

    first_line = b"" if script.text.startswith(b"#!") else b"#!/bin/sh -e\n"
    tree.add_file(_SCRIPT, first_line + script.text, Attributes(0o755))
    size = _disk_size(tree, script.disk)
    machine = ChangingMachine(
        what="runs the script",
        limit=script.limit + _SAVING_LIMIT,
        too_late=ImageBuildError(
            "what the script has changed could not be copied within"
            f" {format_duration(_SAVING_LIMIT)}",
            hint="let it write less, or build on a faster computer",
        ),
        disk_size=size,
        most_bytes=size,
    )
    change_in_machine(tree, kernel, initrd, directory, boot, architecture, machine, work)


def _error(message: str, advice: str, log: Log) -> ImageBuildError:
    shown = f"the end of its output:{log.tail}" if log.tail else "it printed nothing"
    return ImageBuildError(message, hint="; ".join(filter(None, (advice, shown))))


def _disk_size(tree: Tree, room: int) -> int:
    """Return the size of a disk on which `tree` leaves `room` bytes free, and little more."""
    names = tree.names()
    sizes = [(tree.directory / name).lstat().st_size for name in names]
    used = sum(-(-size // _BLOCK) * _BLOCK for size in sizes) + len(names) * _BLOCK
    # An inode has 256 bytes, and there is one for each 16 KiB (disk.py).
    size = max((used + room) * 33 // 32 + _OWN_SPACE, (len(names) + _OWN_INODES) * _INODE_RATIO)
    return min(-(-size // (1 << 20)) << 20, disk.SIZE)


async def _free_space(run: RunProgram) -> int:
    blocks, _, size = (await _output(run, _FREE)).partition(b" ")
    if not (blocks.isdigit() and size.strip().isdigit()):
        raise ImageBuildError(
            "the script has left no machine that tells its free space",
            hint="it may have removed programs of the image",
        )
    return int(blocks) * int(size)


async def _output(run: RunProgram, argv: tuple[str, ...]) -> bytes:
    output = bytearray()

    def receive(stream: str, data: bytes) -> None:
        if stream == "stdout":
            output.extend(data[: _LONGEST_OUTPUT - len(output)])

    end: ProgramEnd = await run(argv, ENVIRONMENT, receive)
    return bytes(output) if end.code == 0 else b""
