"""Tasks of the real client on hypervisors other than QEMU, chosen as a project or a volunteer does.

QEMU is in test_ecm.py and test_fifty_kills.py.
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from boincvm.boinc.client_directory import Output, TaskFile, Work
from boincvm.host.process_tree import descendants
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.virtualbox.driver import open_driver
from support.boinc.installed import WRAPPER, images, path
from support.boinc.rig import SUSPENDED, MakeRig, Rig
from support.boinc.watch import cpu_ticks, is_gone, until
from support.virtualbox.fixture import use_virtualbox
from support.virtualbox.golden import BOOT_LIMIT, WITH_A_BOOT, golden_machine

LINES = 250
LIMIT = 300.0
"""Seconds for the program, or for a part of it, on a busy host."""
STILL = 1.0
"""Seconds without any processor time after which a machine stands still."""

CHAIN = """
import hashlib, sys
digest = b""
for number in range(int(sys.argv[1])):
    for _ in range(int(sys.argv[2])):
        digest = hashlib.sha256(digest + b"%d" % number).digest()
    print(number, digest.hex(), flush=True)
"""
MODULE_THERE = f"""#!{sys.executable} -P
from boincvm.hypervisor.virtualbox import assess
assess.DEVICE = "/dev/null"  # in place of the kernel module's, which is on no machine of ours
from boincvm.cli.boinc_wrapper import main
main()
"""
"""A wrapper that takes VirtualBox for usable here."""


def work(wrapper: Path | bytes, rounds: int, elements: str = "") -> Work:
    """Make a task with LINES lines of output, each of which takes `rounds` rounds."""
    job = f"""<job_desc><task>
<application>/usr/bin/python3.11</application>
<command_line>chain.py {LINES} {rounds}</command_line>
<virtualmachine>vm</virtualmachine><app_pathVM>/usr/bin/python3.11</app_pathVM>
<copy_file_to_VM>chain.py</copy_file_to_VM><stdout_filename>out</stdout_filename>
<memory_mb>256</memory_mb>{elements}
</task></job_desc>"""
    files = [
        TaskFile("wrapper_1.00", wrapper, executable=True),
        TaskFile("job_1.00.xml", job.encode(), open_name="job.xml"),
    ]
    program = TaskFile("chain_1", CHAIN.encode(), open_name="chain.py")
    return Work(files, inputs=[program], outputs=[Output("work_0_0", "out")])


def right_result(rounds: int) -> str:
    digest, lines = b"", []
    for number in range(LINES):
        for _ in range(rounds):
            digest = hashlib.sha256(digest + b"%d" % number).digest()
        lines.append(f"{number} {digest.hex()}\n")
    return "".join(lines)


@pytest.fixture
def cache() -> Iterator[Path]:
    """Return a cache whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="vm") as directory:
        yield Path(directory)


def written(rig: Rig) -> int:
    """Count the lines in the output."""
    output = rig.project / "work_0_0"
    return output.read_bytes().count(b"\n") if output.exists() else 0


def machine_ticks(rig: Rig) -> int:
    """Return the processor time of everything that the wrapper has started."""
    return sum(map(cpu_ticks, descendants(rig.task().pid)))


def stands_still(rig: Rig) -> bool:
    begin = machine_ticks(rig)
    try:
        until(lambda: machine_ticks(rig) != begin, STILL)
    except AssertionError:
        return True
    return False


def suspend_and_resume(rig: Rig) -> None:
    rig.suspend()
    rig.until(lambda task: task.process_state == SUSPENDED)
    until(lambda: stands_still(rig), LIMIT, story=rig.stderr())
    before = written(rig)
    assert before < LINES
    rig.resume()
    until(lambda: written(rig) > before, LIMIT, story=rig.stderr())


def check_end(rig: Rig, rounds: int) -> str:
    """Check the result and that nothing is left; return the wrapper's log."""
    ended = rig.ended(LIMIT)
    assert ended.is_success, ended.stderr
    assert (rig.project / "work_0_0").read_text() == right_result(rounds)
    assert not (rig.slot() / "boincvm-machine-0").exists()
    assert rig.processes() == []
    return ended.stderr


def processes_of(directory: Path) -> list[str]:
    """List the processes that have a path beneath `directory` in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.fsencode(directory) in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
        except OSError:  # it has ended, or is not ours to look at
            continue
    return [command for command in found if command]


@pytest.mark.timeout(600)
def test_user_mode_linux_because_the_job_asks_for_it(
    make_rig: MakeRig, base_image: Path, uml_kernel: Path, cache: Path
) -> None:
    rounds = 24_000
    rig = make_rig(
        work(WRAPPER, rounds, "<driver>uml</driver>"),
        environment={**images(), "PATH": path(), "XDG_CACHE_HOME": str(cache)},
    )
    rig.start()
    until(lambda: written(rig) > 0, LIMIT, story=rig.stderr())
    machine = descendants(rig.task().pid)
    assert machine != []
    suspend_and_resume(rig)
    text = check_end(rig, rounds)
    assert "the machine vm: the driver uml: the job asks for it" in text
    assert [one for one in machine if not is_gone(one)] == []


@pytest.fixture
async def make_virtualbox_rig(
    make_rig: MakeRig,
    base_image: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[int], Rig]:
    """Make a rig whose volunteer prefers VirtualBox and has a golden snapshot for the task."""
    use_virtualbox(monkeypatch)
    files = (base_image / "kernel", base_image / "initrd", base_image / "root.qcow2")
    spec = MachineSpec(cache, *files, memory=256 << 20, cpus=1)
    golden = await golden_machine(await open_driver(), spec)

    def make(rounds: int) -> Rig:
        environment = {
            **images(),
            "PATH": path(),
            "XDG_CACHE_HOME": str(cache),
            "XDG_DATA_HOME": str(golden.data_directory),
        }
        rig = make_rig(work(MODULE_THERE.encode(), rounds), environment=environment)
        preferences = rig.home / ".config/boincvm/preferences.toml"
        preferences.parent.mkdir(parents=True)
        preferences.write_text('driver = "virtualbox"\n')
        return rig

    return make


@pytest.mark.timeout(WITH_A_BOOT + 600)
def test_virtualbox_because_the_volunteer_prefers_it(
    make_virtualbox_rig: Callable[[int], Rig], cache: Path
) -> None:
    """Save the state between two runs of the client."""
    rounds = 20
    rig = make_virtualbox_rig(rounds)
    rig.start()
    until(lambda: written(rig) > 0, BOOT_LIMIT, story=rig.stderr())
    suspend_and_resume(rig)
    rig.quit()
    stored = written(rig)
    assert 0 < stored < LINES
    assert rig.processes() == []
    assert processes_of(cache) == []
    rig.start()
    until(lambda: written(rig) > stored, LIMIT, story=rig.stderr())
    text = check_end(rig, rounds)
    assert text.count("the machine vm: the driver virtualbox: the preferences ask for it") == 1, (
        text
    )
    assert "the machine vm sleeps on disk" in text, text
    assert "booted cold" not in text
    assert processes_of(cache) == []
    assert [path.name for path in (cache / "boincvm/virtualbox").iterdir()] == ["lock"]
