"""`boincvm run -t`: a program in a machine on the user's own terminal."""

import asyncio
import os
import sys

from boincvm.exit_codes import ExitCode
from support.bench import Bench
from support.on_terminal import on_terminal, session

RUN = (sys.executable, "-m", "boincvm.cli.main", "run", "-t")


async def test_a_shell_by_default(bench: Bench) -> None:
    """The terminal is as before when it ends, and nothing of the machine is left."""
    environment = {"TERM": "linux"}
    async with on_terminal(*RUN, environment=environment, directory=bench.work) as terminal:
        await terminal.until("# ")
        await session(terminal)
    assert "boincvm: running" not in terminal.shown


async def test_a_program_of_ones_own_and_leaving_it(bench: Bench) -> None:
    program = bench.work / "prog"
    program.write_text("#!/bin/sh\ntrap '' INT HUP\nls; tty; stty -echo; echo $A$1; exec cat\n")
    program.chmod(0o755)
    words = ("--env", "A=x", "--", "./prog", "y")
    async with on_terminal(*RUN, *words, directory=bench.work) as terminal:
        await terminal.until("prog")
        await terminal.until("/dev/pts/")
        await terminal.until("xy")
        terminal.type("\x03\r~.")
        await terminal.until("left the program")
        assert await terminal.code() == ExitCode.HUNG_UP
        assert terminal.modes() == terminal.modes_before
    assert os.listdir(bench.work) == ["prog"]


async def test_a_terminal_that_goes_away(bench: Bench) -> None:
    """The machine ends as it does by any SIGHUP."""
    words = ("--", "sh", "-c", "echo ready; exec sleep 100")
    async with on_terminal(*RUN, *words, directory=bench.work) as terminal:
        await terminal.until("ready")
        terminal.process.send_signal(1)
        async with asyncio.timeout(60):
            assert await terminal.process.wait() == 129
