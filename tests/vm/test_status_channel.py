"""What a program in a real guest reports besides its output: messages, usage, watched files."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.program import WINDOW
from boincvm.guestlink.status_channel import Finish, FractionDone
from support.booted import LIMIT, Listener, booted, spec_in

pytestmark = pytest.mark.timeout(200)


@pytest.fixture
async def link(base_image: Path, tmp_path: Path) -> AsyncIterator[GuestLink]:
    async with booted(spec_in(tmp_path / "machine", base_image)) as (_, link):
        yield link


SPEAKS = """
import os
path = os.environ["BOINCVM_STATUS_CHANNEL"]
with open(path, "wb", buffering=0) as status_channel:
    for number in range(1001):
        status_channel.write(b"fraction-done %.3f\\n" % (number / 1000))
os.system('echo "finish 3 0 that is all" > "$BOINCVM_STATUS_CHANNEL"')
print(os.stat(path).st_mode & 0o777 == 0o622)
raise SystemExit(3)
"""


async def test_all_words_come_in_order_and_before_the_end(link: GuestLink) -> None:
    received = Listener()
    program = received.start(link, SPEAKS, status_channel=True)
    async with asyncio.timeout(LIMIT):
        end = await program.wait()
    assert end.code == 3
    assert received.output["stdout"] == b"True\n"
    assert received.messages == [
        *[FractionDone(number / 1000) for number in range(1001)],
        Finish(3, notice=False, message="that is all"),
    ]
    left = Listener()
    program = left.start(link, "import os; print(os.listdir('/run/boincvm'))")
    async with asyncio.timeout(LIMIT):
        await program.wait()
    assert left.output["stdout"] == b"[]\n"


FLOOD = """
import os
line = b"x" * 4000 + b"\\n"
with open(os.environ["BOINCVM_STATUS_CHANNEL"], "wb", buffering=0) as status_channel:
    for number in range(1000):
        status_channel.write(line)
    status_channel.write(b"fraction-done 1\\n")
print("through")
"""


async def test_a_flood_of_messages_is_held_back(link: GuestLink) -> None:
    received = Listener()
    received.grants = False
    program = received.start(link, FLOOD, status_channel=True)
    await received.until(lambda: received.status_bytes == WINDOW)
    # Had it not been held back by its credit, it would be through by the second beat.
    probe = Listener()
    other = probe.start(link, "pass")
    async with asyncio.timeout(LIMIT):
        await other.wait()
    assert (received.status_bytes, received.output["stdout"]) == (WINDOW, b"")
    received.grants = True
    program.grant(WINDOW)
    async with asyncio.timeout(LIMIT):
        assert (await program.wait()).code == 0
    assert received.messages == [FractionDone(1.0)]
    assert received.status_bytes == 4001 * 1000 + 16


async def test_usage_of_a_program_that_burns_time(link: GuestLink) -> None:
    received = Listener()
    program = received.start(link, "while True: pass", usage=True)
    await received.until(lambda: len(received.usage) >= 4)
    program.signal(9)
    async with asyncio.timeout(LIMIT):
        end = await program.wait()
    times = [usage.user_time + usage.system_time for usage in received.usage]
    assert times == sorted(set(times))
    assert 0.5 < times[-1] - times[0] <= end.user_time + end.system_time
    assert all(1 << 20 < usage.rss < 64 << 20 for usage in received.usage)


WRITES = """
import os, sys, time
def rename(text):
    with open("new", "w") as file:
        file.write(text)
    os.rename("new", "sub/fraction")
for command in sys.stdin:
    if command == "directory\\n":
        os.mkdir("sub")
    elif command.startswith("rename "):
        rename(command[7:])
    elif command.startswith("in place "):
        with open("sub/fraction", "r+") as file:
            file.write(command[9:])
    elif command == "link\\n":
        os.symlink("/etc/passwd", "link")
        os.rename("link", "sub/fraction")
    elif command == "fifo\\n":
        os.mkfifo("fifo")
        os.rename("fifo", "sub/fraction")
    elif command == "busy\\n":
        end = time.monotonic() + 3
        rename("busy")
        with open("sub/fraction", "r+") as file:
            while time.monotonic() < end:
                file.seek(0)
                file.write("busy")
                file.flush()
                print("w", end="")
    elif command == "last\\n":
        rename("last words")
        break
"""


async def test_a_watched_file(link: GuestLink) -> None:
    received = Listener()
    program = received.start(link, WRITES, usage=True)
    program.watch("sub/fraction", received.on_change)

    async def report(command: str, tail: bytes) -> None:
        program.feed(command.encode() + b"\n")
        await received.until(lambda: received.changes and received.changes[-1][2] == tail)

    program.feed(b"directory\n")
    await report("rename 0.25", b"0.25\n")
    await report("in place 0.50", b"0.50\n")
    await report("rename " + "x" * 5000, b"x" * 4095 + b"\n")
    assert [path for path, _, _ in received.changes] == ["sub/fraction"] * 3
    assert received.changes[0][1] < received.changes[1][1] < received.changes[2][1]
    # What is no file is not looked into, and what does not change is not reported.
    for command in (b"fifo\n", b"link\n"):
        program.feed(command)
        beats = len(received.usage)
        await received.until(lambda beats=beats: len(received.usage) >= beats + 4)
    assert len(received.changes) == 3
    await report("rename 0.75", b"0.75\n")
    # Thousands of writes in three seconds are a few reports.
    program.feed(b"busy\n")
    await received.until(lambda: len(received.output["stdout"]) > 1000)
    program.feed(b"last\n")
    async with asyncio.timeout(LIMIT):
        assert (await program.wait()).code == 0
    assert received.changes[-1][2] == b"last words"
    assert len(received.changes) <= 10
    assert os.fsdecode(received.changes[4][2]).startswith("busy")
