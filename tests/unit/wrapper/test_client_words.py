"""The client's messages while tasks run on the host: suspend, resume, quit, abort; and silence."""

import asyncio
import os
import signal
import zipfile

import pytest

from boincvm.boinc import Control
from boincvm.boinc.testing import EndKind, classify_exit
from boincvm.host.supervised import GRACE
from support.host_delays import within
from support.host_slot import LIMIT, SHORT_GRACE, SHORTENED, HostSlot, task

pytestmark = pytest.mark.timeout(90)

OUT = "<stdout_filename>out</stdout_filename>"
COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"
"""Counts for ever."""
STUBBORN = f"trap '' TERM; {COUNT}"
DAEMON = "<daemon/>"
CONTROLS = (Control.ABORT, Control.QUIT)
SILENCE = 4.0
"""Seconds without a heartbeat after which a client is gone; we are the client, and may be held up
for some, too."""


async def counts(slot: HostSlot) -> None:
    """Wait until the program has counted further."""
    before = len(slot.text("out"))
    await slot.holds(lambda: len(slot.text("out")) > before)


def held(function: str) -> str:
    """Make the wrapper wait before a step of its archives, until the slot has a file `go`."""
    return f"""
import os, time, boincvm.wrapper.slot.archives as archives
def hold(*arguments, original=archives.{function}):
    open("holds", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.01)
    return original(*arguments)
archives.{function} = hold
"""


def archives(slot: HostSlot) -> str:
    """Return the elements for unpacking before and packing after the tasks."""
    with zipfile.ZipFile(slot.path / "in.zip", "w") as made:
        made.writestr("data", "from the archive")
    return (
        "<unzip_input><zipfilename>in.zip</zipfilename></unzip_input>"
        "<zip_output><zipfilename>out.zip</zipfilename><filename>ran</filename></zip_output>"
    )


async def leaves(slot: HostSlot, control: Control, limit: float = 5) -> None:
    """Check that it ends at once, as requested, with neither file."""
    slot.send(control)
    with within(limit):
        end = await slot.wait()
    aborts = control is Control.ABORT
    assert end.kind is (EndKind.ABORTED if aborts else EndKind.QUIT)
    assert end.status == (194 if aborts else 0), slot.stderr
    assert not {"boinc_finish_called", "boinc_temporary_exit"} & set(os.listdir(slot.path))
    assert "Traceback" not in slot.stderr


async def test_cycles_of_throttling_lose_nothing(slot: HostSlot) -> None:
    slot.job(task("i=0; while [ ! -e go ]; do i=$((i+1)); echo $i; sleep 0.01; done", OUT))
    await slot.begin()
    await counts(slot)
    for _ in range(20):
        await slot.suspend()
        slot.send(Control.RESUME)
        await counts(slot)
    slot.write("go", "")
    end = await slot.wait()
    assert end.kind is EndKind.FINISHED, slot.stderr
    numbers = [int(word) for word in slot.text("out").split()]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_suspended_before_anything_runs(slot: HostSlot) -> None:
    slot.patched(held("_unpack"))
    ran = task("echo daemon >> ran; sleep 1000", DAEMON)
    slot.job(task("cat data >> ran"), ran, more=archives(slot))
    await slot.begin()
    await slot.holds(lambda: (slot.path / "holds").exists())
    slot.send(Control.SUSPEND)
    await slot.holds(lambda: not slot.control.is_full)
    slot.write("go", "")
    await slot.holds(lambda: not (slot.path / "in.zip").exists())
    for _ in range(3):
        await slot.status()
    assert slot.text("ran") == ""
    slot.send(Control.RESUME)
    end = await slot.wait()
    assert end.kind is EndKind.FINISHED, slot.stderr
    assert "from the archive" in slot.text("ran")


async def test_somebody_kills_a_suspended_program(slot: HostSlot) -> None:
    slot.job(task(COUNT, OUT), task("echo > next"))
    await slot.begin()
    await counts(slot)
    await slot.suspend()
    await slot.holds(lambda: bool(slot.statuses) and slot.statuses[-1].value.other_pid is not None)
    program = slot.statuses[-1].value.other_pid
    assert program is not None
    os.kill(program, signal.SIGKILL)
    end = await slot.wait()
    assert (end.kind, end.status) == (EndKind.FAILED, 195), slot.stderr
    assert end.text == "signal 9 killed /bin/sh"
    assert slot.left() == {"job.xml", "out"}


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("suspended", [False, True])
@pytest.mark.parametrize(
    ("script", "daemon"), [(COUNT, COUNT), (f"{STUBBORN} & {STUBBORN} & {STUBBORN}", STUBBORN)]
)
async def test_told_to_go(
    slot: HostSlot, control: Control, suspended: bool, script: str, daemon: str
) -> None:
    beside = task(daemon, DAEMON, "<stdout_filename>ticks</stdout_filename>")
    slot.job(task(script, OUT), task("echo > next"), beside, beside)
    if not suspended:
        slot.patched(SHORTENED)
    await slot.begin()
    await counts(slot)
    if suspended:
        await slot.suspend()
    may_take_its_time = control is Control.QUIT and daemon is STUBBORN
    await leaves(slot, control, GRACE + 5 if may_take_its_time else 5)
    assert slot.left() == {"job.xml", "out", "ticks"}
    assert slot.text("wrapper_checkpoint.txt").startswith("0 ")


@pytest.mark.parametrize("control", CONTROLS)
async def test_a_program_that_ends_well_when_it_is_told_to_go(
    slot: HostSlot, control: Control
) -> None:
    """This does not complete it, and no other follows while a daemon takes its time."""
    slot.patched(SHORTENED)
    slot.job(task(f"trap 'exit 0' TERM; {COUNT}", OUT), task("echo > next"), task(STUBBORN, DAEMON))
    await slot.begin()
    await counts(slot)
    await leaves(slot, control, SHORT_GRACE + 5 if control is Control.QUIT else 5)
    assert slot.left() == {"job.xml", "out"}
    if control is Control.QUIT:
        assert slot.text("wrapper_checkpoint.txt").startswith("0 ")


@pytest.mark.parametrize("control", CONTROLS)
async def test_all_are_told_once_and_at_the_same_time(slot: HostSlot, control: Control) -> None:
    """So each may use all the time to save its state: each waits then until all have been told."""
    slot.patched(f"{SHORTENED}; supervised.ABORT_GRACE = supervised.GRACE")
    parts = {"task": "", "daemon1": DAEMON, "daemon2": DAEMON}
    all_told = " && ".join(f"[ -e {name} ]" for name in parts)
    waits = f"until {all_told}; do sleep 0.01; done"
    slot.job(*(
        task(f"trap 'echo told >> {name}; {waits}; echo all >> {name}' TERM; echo > up_{name}; "
             f"{COUNT}", element, OUT)
        for name, element in parts.items()
    ))  # fmt: skip
    await slot.begin()
    await slot.holds(lambda: len(list(slot.path.glob("up_*"))) == 3)
    await leaves(slot, control, SHORT_GRACE + 5)
    assert [slot.text(name).split() for name in parts] == [["told", "all"]] * 3


SAVES = "trap 'sleep 4; echo saved >> {0}; exit' TERM; echo up >> {0}; while :; do sleep 0.01; done"
"""Needs 4 s to save what it has."""


async def test_a_quit_leaves_time_to_save(slot: HostSlot) -> None:
    slot.job(task(SAVES.format("task")), task(SAVES.format("daemon"), DAEMON))
    await slot.begin()
    await slot.wait_for_text("task", "up")
    await slot.wait_for_text("daemon", "up")
    await leaves(slot, Control.QUIT, GRACE)
    assert (slot.text("task"), slot.text("daemon")) == ("up\nsaved\n", "up\nsaved\n")


async def test_the_end_of_a_time_limit_and_of_daemons_leaves_time_to_save(slot: HostSlot) -> None:
    slot.job(
        task(SAVES.format("task"), "<time_limit>1</time_limit>"),
        task(SAVES.format("daemon"), DAEMON),
    )
    await slot.ends_well()
    assert (slot.text("task"), slot.text("daemon")) == ("up\nsaved\n", "up\nsaved\n")


@pytest.mark.parametrize("word", [Control.QUIT, signal.SIGTERM])
async def test_an_abort_in_the_middle_of_a_quit(
    slot: HostSlot, word: Control | signal.Signals
) -> None:
    slot.job(task(STUBBORN, OUT), task(STUBBORN, DAEMON))
    await slot.begin()
    await counts(slot)
    if isinstance(word, Control):
        slot.send(word)
    else:
        slot.kill(word)
    await slot.wait_for_text("stderr.txt", "asked to ")
    slot.send(Control.ABORT)
    with within(GRACE):
        end = await slot.wait()
    assert end.kind is EndKind.ABORTED
    assert "aborted by the client" in slot.stderr


async def test_an_abort_just_as_all_is_saved(slot: HostSlot) -> None:
    """The programs on the host do not get the time that they have after a quit."""
    slot.patched("""
import asyncio
from boincvm.boinc import Client, Event
from boincvm.wrapper.tasks.sequence import TaskSequence
came = asyncio.Event()
def poll(self, original=Client._poll_channels):
    original(self)
    if Event.ABORT in self._events._queue:
        came.set()
async def save(self):
    await came.wait()
Client._poll_channels, TaskSequence.save = poll, save
""")
    slot.job(task(STUBBORN, OUT))
    await slot.begin()
    await counts(slot)
    slot.kill(signal.SIGTERM)
    await slot.wait_for_text("stderr.txt", "asked to ")
    slot.send(Control.ABORT)
    with within(GRACE - 1):
        end = await slot.wait()
    assert end.kind is EndKind.ABORTED
    assert "aborted by the client" in slot.stderr


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("step", ["_unpack", "_add"])
async def test_told_to_go_while_archives_are_at_work(
    slot: HostSlot, control: Control, step: str
) -> None:
    slot.job(task("cat data > ran"), more=archives(slot))
    usual = slot.launcher
    slot.patched(held(step))
    await slot.begin()
    await slot.holds(lambda: (slot.path / "holds").exists())
    await leaves(slot, control)
    assert not (slot.path / "out.zip").exists()
    slot.launcher = usual
    await slot.ends_well()
    with zipfile.ZipFile(slot.path / "out.zip") as made:
        assert made.read("ran") == b"from the archive"
    assert slot.left() == {"job.xml", "data", "ran", "out.zip", "holds", "initial_file_list"}


@pytest.mark.parametrize("control", CONTROLS)
async def test_told_to_go_at_once(slot: HostSlot, control: Control) -> None:
    slot.job(task(COUNT, OUT))
    await slot.begin()
    await leaves(slot, control)


async def test_the_client_dies(slot: HostSlot) -> None:
    slot.job(task(COUNT, OUT))
    await slot.begin()
    await counts(slot)
    await slot.die()
    with within(5):
        end = await slot.wait()
    assert (end.kind, end.status) == (EndKind.PREMATURE, 0)
    assert "the client is gone" in slot.stderr


async def test_a_client_of_unknown_process_falls_silent(slot: HostSlot) -> None:
    slot.slot.values["client_pid"] = 0
    slot.slot.write_init_data()
    slot.patched(f"import boincvm.boinc.client_liveness as p; p.HEARTBEAT_LIMIT = {SILENCE}")
    slot.job(task(COUNT, OUT))
    await slot.begin()
    await counts(slot)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await slot.until(lambda: loop.time() - begin > SILENCE + 1.5)  # it speaks: nothing happens
    assert slot.is_running
    slot.heartbeats = False
    with within(SILENCE + 4.5):
        end = await slot.wait()
    assert (end.kind, end.status) == (EndKind.PREMATURE, 0)
    assert "the client is gone" in slot.stderr


async def test_the_wrapper_is_killed(slot: HostSlot) -> None:
    slot.job(task(f"{STUBBORN} & {STUBBORN}", OUT), task(STUBBORN, DAEMON))
    await slot.begin()
    await counts(slot)
    slot.kill(signal.SIGKILL)
    end = await slot.wait()
    assert (end.kind, end.signal) == (EndKind.KILLED, signal.SIGKILL)
    with within(5):
        await slot.until(lambda: not slot.below(), LIMIT)


async def test_every_word_of_the_client_is_taken(slot: HostSlot) -> None:
    """This includes the packing of an archive: a client kills a task that reads nothing for three
    minutes."""
    slot.patched(held("_add"))
    slot.job(task("cat data > ran"), more=archives(slot))
    await slot.begin()
    await slot.holds(lambda: (slot.path / "holds").exists())
    for control in (Control.NETWORK_AVAILABLE, Control.SUSPEND, Control.RESUME):
        slot.change_preferences(cpu_usage_limit=50.0)
        slot.send(control)
    with within(5):
        await slot.holds(lambda: len(slot.sent) == 6 and not slot.control.is_full)
    slot.write("init_data.xml", "no init_data")
    slot.send(Control.REREAD_PREFERENCES)
    await slot.wait_for_text("stderr.txt", "preferences stay unchanged")
    slot.write("go", "")
    end = await slot.wait()
    assert end.kind is EndKind.FINISHED, slot.stderr


async def test_two_in_one_slot(slot: HostSlot) -> None:
    slot.job(task(COUNT, OUT))
    await slot.begin()
    await counts(slot)
    slot.patched(
        "from boincvm.boinc import Client; from functools import partial;"
        "Client.open = partial(Client.open, lock_wait=0.3)"
    )
    second = await asyncio.create_subprocess_exec(*slot.launcher, cwd=slot.path)
    async with asyncio.timeout(10):
        status = await second.wait()
    end = classify_exit(slot.path, status, [])
    assert (end.kind, end.delay) == (EndKind.TEMPORARY_EXIT, 600)
    assert "another process has locked the slot" in end.text
    (slot.path / "boinc_temporary_exit").unlink()
    await counts(slot)  # the first one cares for nothing
    await leaves(slot, Control.QUIT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
async def test_a_signal_is_a_word_to_quit(slot: HostSlot, number: int) -> None:
    slot.script("app", "echo begin; exec sleep 1000")
    slot.job("<application>app</application><stdout_filename>out</stdout_filename>")
    await slot.begin()
    await slot.wait_for_text("out", "begin")
    slot.kill(number)
    end = await slot.wait(LIMIT)
    assert (end.kind, end.status) == (EndKind.PREMATURE, 0), slot.stderr
    assert "asked to end by" in slot.stderr
