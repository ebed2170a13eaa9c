"""Checkpoints that are interrupted at any step, and disks that fail: only time is lost."""

import hashlib
import json
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from boincvm.boinc import Control
from boincvm.boinc.testing import EndKind
from boincvm.hypervisor.qemu.checkpoint import STEPS
from boincvm.machine.saved_machine import SCHEMA, find_saved
from boincvm.paths import data_directory
from support.counting import NOTIFIED, RESUMED, check_count, counting, lines
from support.slot import LIMIT, Slot

pytestmark = [pytest.mark.timeout(280), pytest.mark.usefixtures("base_image")]
MACHINE = "boincvm-machine-0"
ASKS = "case $i in *0) echo checkpoint-wanted > $BOINCVM_STATUS_CHANNEL;; esac"
"""Asks for a checkpoint after every tenth line."""
OFTEN = "from boincvm.machine import checkpoint_schedule; checkpoint_schedule.LEAST_PAUSE = 0.3"
WRAP = "from boincvm.cli.boinc_wrapper import main; main()"


@pytest_asyncio.fixture
async def slot(tmp_path: Path) -> AsyncIterator[Slot]:
    async with Slot(tmp_path, period=0.25) as slot:
        yield slot


async def start(slot: Slot, *code: str) -> None:
    """Start the wrapper, with something in it replaced by `code`."""
    home = {"XDG_CACHE_HOME": str(slot.cache), "XDG_DATA_HOME": str(data_directory().parent)}
    program = "\n".join([OFTEN, *code, WRAP])
    await slot.start([sys.executable, "-P", "-c", program], environment=home)


async def finishes(slot: Slot) -> None:
    end = await slot.wait(LIMIT)
    assert (end.kind, end.status) == (EndKind.FINISHED, 0), slot.stderr
    check_count(slot.text("out"))
    assert not (slot.path / MACHINE).exists()


KILL = """
import os, signal
from functools import partial
from pathlib import Path
from boincvm.hypervisor.qemu import driver
from boincvm.wrapper.tasks import machines
begun = 0
def victims():
    if {victim!r} == "wrapper":
        return [os.getpid()]
    mark = os.fsencode({slot!r})
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if mark in words and {victim!r}.encode() in words and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found
def passed(step):
    global begun
    begun += step == "begun"
    if step == {step!r} and begun == 2:
        for pid in victims():
            os.kill(pid, signal.SIGKILL)
driver.QemuMachine = partial(driver.QemuMachine, on_step=passed)
really_remove = machines.remove_unneeded
def remove(directory, **which):
    passed("manifest written")
    really_remove(directory, **which)
    passed("older removed")
machines.remove_unneeded = remove
"""
STEPS_OF_WRAPPER = (*STEPS, "manifest written", "older removed")


@pytest.mark.parametrize(
    ("step", "victim"),
    [
        *((step, victim) for step in STEPS_OF_WRAPPER for victim in ("wrapper", "qemu-system")),
        ("guest stopped", "memory_receiver"),
    ],
)
async def test_a_kill_at_every_step_of_the_second_checkpoint(
    slot: Slot, step: str, victim: str
) -> None:
    slot.machine_job(
        counting(NOTIFIED if victim == "memory_receiver" else RESUMED, each=ASKS, pause=0.05)
    )
    await start(slot, KILL.format(step=step, victim=victim, slot=str(slot.path)))
    if victim == "memory_receiver":
        # Only the checkpoint is lost; the job ends as ever.
        await slot.wait_for_text("stderr.txt", "no checkpoint was made, the previous one is kept")
        slot.send_trickle_down("<end/>")
        await finishes(slot)
        return
    end = await slot.wait(LIMIT)
    assert end.kind is not EndKind.FINISHED, slot.stderr
    await slot.until(lambda: slot.machines() == [], LIMIT)
    stored = find_saved(slot.path / MACHINE)
    assert stored.saved is not None, slot.stderr
    assert stored.lost == ()
    sizes = stored.saved.task.files.values() if stored.saved.task else ()
    assert sum(sizes) >= len(lines(9))
    await slot.begin()
    await finishes(slot)


async def test_a_kill_before_there_is_a_checkpoint(slot: Slot) -> None:
    """The task starts over, and its output has nothing of its first start."""
    slot.machine_job(counting(RESUMED))
    await slot.begin()
    await slot.wait_for_text("out", "line 5\n")
    slot.kill(signal.SIGKILL)
    await slot.wait(LIMIT)
    assert list((slot.path / MACHINE).glob("checkpoint-*.json")) == []
    slot.machine_job(counting("true"))
    await slot.begin()
    await finishes(slot)


POWER = """
import os, shutil
from pathlib import Path
place, machine = Path({location!r}), Path({machine!r})
synced = place / "synced"
synced.mkdir(exist_ok=True)
really = os.fsync
def fsync(descriptor):
    '''What is on the disk from now on: a file's content, or a directory's names.'''
    really(descriptor)
    path = Path(os.readlink(f"/proc/self/fd/{{descriptor}}"))
    if path.parent == machine and path.is_file():
        shutil.copy(path, synced / str(path.stat().st_ino))
    elif path == machine:
        state = place / "new"
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir()
        for file in machine.iterdir():
            if file.is_file():
                content = synced / str(file.stat().st_ino)
                (state / file.name).write_bytes(content.read_bytes() if content.exists() else b"")
        state.rename(place / f"state-{{len(list(place.glob('state-*'))):03}}")
os.fsync = fsync
"""


async def test_a_power_cut_at_every_sync(slot: Slot, tmp_path: Path) -> None:
    """After each sync of the directory, make a copy of what a power cut would leave: the names as
    they were, and the synced part of each file."""
    location = tmp_path / "cuts"
    location.mkdir()
    code = POWER.format(location=str(location), machine=str(slot.path / MACHINE))
    slot.machine_job(counting(RESUMED, each=ASKS, pause=0.2))
    in_helper = (
        f"import sys; sys.path.insert(0, sys.argv[1])\n{code}\n"
        "from boincvm.hypervisor.qemu.memory_receiver import main; sys.exit(main(sys.argv[2:]))"
    )
    receiver = f"from boincvm.hypervisor.qemu import checkpoint as q; q._RECEIVER = {in_helper!r}"
    await start(slot, code, receiver)
    await slot.holds(lambda: len(list(location.glob("state-*"))) >= 6)
    output = slot.text("out")
    await slot.is_killed()
    states = sorted(location.glob("state-*"))
    numbers = []
    for state in states:
        found = find_saved(state)
        numbers.append(found.saved.checkpoint.number if found.saved else 0)
    assert len(states) >= 6
    assert numbers == sorted(numbers), numbers
    assert numbers[-1] >= 2
    for number in sorted(set(numbers) - {0}):
        # The last state in which it is the newest: the next one was being made.
        state = states[max(i for i, newest in enumerate(numbers) if newest == number)]
        shutil.rmtree(slot.path / MACHINE)
        shutil.copytree(state, slot.path / MACHINE)
        (slot.path / MACHINE).chmod(0o700)
        slot.write("out", output)
        await slot.begin()
        await slot.holds(lambda: slot.text("out") != output)  # it went back
        await slot.is_killed()
        assert lines(slot.text("out").count("\n") + 1).startswith(slot.text("out"))
    await slot.begin()
    await finishes(slot)


NO_SPACE = """
import errno
from boincvm.machine import saved_machine
really = saved_machine.write_atomically
def write(path, content):
    raise OSError(errno.ENOSPC, "No space left on device", str(path))
saved_machine.write_atomically = write
"""


async def test_a_disk_that_is_full_when_the_manifest_is_written(slot: Slot) -> None:
    slot.machine_job(counting(NOTIFIED, each=ASKS))
    await start(slot, NO_SPACE)
    words = ("no checkpoint was made, the previous one is kept", "No space left")
    await slot.wait_for_text("stderr.txt", *words)
    slot.send_trickle_down("<end/>")
    await finishes(slot)
    assert all(word in slot.stderr for word in words)


LIMITED = """
import resource, signal
from boincvm.hypervisor.qemu import checkpoint as q
q._RECEIVER = (
    "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    " resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size})); " + q._RECEIVER
)
"""


@pytest.mark.parametrize("size", [0, 1 << 20, 40 << 20])
async def test_a_disk_on_which_the_memory_does_not_fit(slot: Slot, size: int) -> None:
    slot.machine_job(counting(NOTIFIED, each=ASKS))
    await start(slot, LIMITED.format(size=size))
    await slot.wait_for_text("stderr.txt", "no checkpoint was made, the previous one is kept")
    # Nothing stays of an attempt; the next one may be under way just now.
    await slot.until(lambda: not list((slot.path / MACHINE).glob("memory-*")), LIMIT)
    slot.send_trickle_down("<end/>")
    await finishes(slot)
    assert "no checkpoint was made, the previous one is kept" in slot.stderr


async def test_a_program_whose_machine_cannot_be_kept_has_time_to_end(slot: Slot) -> None:
    """Its messages, such as a trickle, still arrive; one that ignores the signal is not waited
    for."""
    slot.machine_job("trap 'sleep 4; echo told; exit' TERM; echo up; while :; do sleep 0.1; done")
    await start(slot, LIMITED.format(size=0))
    await slot.wait_for_text("out", "up\n")
    slot.send(Control.QUIT)
    end = await slot.wait(30)
    assert end.kind is EndKind.QUIT, slot.stderr
    assert slot.text("out") == "up\ntold\n", slot.stderr
    assert "not everything could be saved" in slot.stderr


ROOM = """
from boincvm.machine import host_capacity
host_capacity.RESERVE = 1 << 60
"""


async def test_a_checkpoint_that_would_not_fit_is_not_begun(slot: Slot) -> None:
    slot.machine_job(counting(NOTIFIED, each=ASKS))
    await start(slot, ROOM)
    words = (
        "no checkpoint was made, the previous one is kept: a checkpoint needs up to",
        "of disk, and 0 B is free",
    )
    await slot.wait_for_text("stderr.txt", *words)
    slot.send_trickle_down("<end/>")
    await finishes(slot)
    assert all(word in slot.stderr for word in words)


async def test_a_manifest_of_a_newer_version(slot: Slot) -> None:
    slot.machine_job(counting(RESUMED, each=ASKS))
    await start(slot)
    await slot.wait_for_text("stderr.txt", "is kept on disk")
    slot.send(Control.QUIT)
    await slot.wait(LIMIT)
    newest = max((slot.path / MACHINE).glob("checkpoint-*.json"))
    table = json.loads(newest.read_text())
    table["schema"] += 1
    newest.write_text(json.dumps(table))
    await slot.begin()
    await finishes(slot)
    expected = f"a newer boincvm made it (schema {SCHEMA + 1}, this one knows {SCHEMA})"
    assert expected in slot.stderr
    assert "resumes from checkpoint" in slot.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"type": "pc-q35-99.0"}, "a newer QEMU has saved the machine"),
        (
            {"accelerator": "kvm", "cpu": "host", "hpet": False},
            "was saved under kvm, which does not work here",
        ),
        ({"type": 3}, "does not record its type"),
        ({"layers": []}, "does not list its layers"),
        ({"memory": "memory-999999"}, "is not among the files of the checkpoint"),
    ],
)
async def test_a_machine_of_another_qemu(slot: Slot, change: dict[str, object], words: str) -> None:
    """If it cannot resume, it starts over, and the log gives the reason."""
    slot.machine_job("echo begin; sleep 1000")
    await slot.begin()
    await slot.wait_for_text("out", "begin")
    slot.send(Control.QUIT)
    await slot.wait(LIMIT)
    for path in (slot.path / MACHINE).glob("checkpoint-*.json"):
        table = json.loads(path.read_text())
        table["machine"].update(change)
        del table["checksum"]
        text = json.dumps(table, sort_keys=True, separators=(",", ":"))
        table["checksum"] = hashlib.blake2b(text.encode(), digest_size=32).hexdigest()
        path.write_text(json.dumps(table))
    slot.machine_job("echo begin; echo end")
    await slot.begin()
    end = await slot.wait(LIMIT)
    assert (end.kind, end.status) == (EndKind.FINISHED, 0), slot.stderr
    assert slot.text("out") == "begin\nend\n"
    assert words in slot.stderr


WEEK = 7 * 24 * 3600
SLEPT = f"""
import time
from pathlib import Path
wall, wall_ns = time.time, time.time_ns
def slept():
    return {WEEK} if Path({{mark!r}}).exists() else 0
time.time = lambda: wall() + slept()
time.time_ns = lambda: wall_ns() + slept() * 10**9
"""


async def test_a_host_that_slept_for_a_week(slot: Slot, tmp_path: Path) -> None:
    """Simulate it: the wrapper's wall clock jumps. The guest's follows."""
    mark = tmp_path / "slept"
    slot.machine_job("while :; do date +%s; sleep 0.1; done")
    await start(slot, SLEPT.format(mark=str(mark)))
    await slot.wait_for_text("out", "\n")
    begin = int(slot.text("out").split()[0])
    mark.touch()
    await slot.holds(lambda: int(slot.text("out").split("\n")[-2]) >= begin + WEEK)
    await slot.is_killed()
