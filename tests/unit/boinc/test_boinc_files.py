"""The files in a slot: lock, soft links, end files, trickles, uploads."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm.boinc.exits import message_line, write_finish_file, write_temporary_exit_file
from boincvm.boinc.init_data import InitData
from boincvm.boinc.lock import SlotBusyError, SlotLock
from boincvm.boinc.soft_link import SoftLinkError, resolve
from boincvm.boinc.trickles import LARGEST_TRICKLE, trickle_downs, write_trickle_up
from boincvm.boinc.uploads import upload_status, write_upload_request
from boincvm.errors import HostError

pytestmark = pytest.mark.timeout(60)

# Takes the lock as BOINC's library does, says so, and keeps it until its input ends.
HOLDER = """
import fcntl, sys
file = open("boinc_lockfile", "w")
fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


async def test_a_slot_that_stays_locked(tmp_path: Path, holder: subprocess.Popen[bytes]) -> None:
    with pytest.raises(SlotBusyError, match="another process has locked"):
        await SlotLock.acquire(tmp_path, 0.3)


async def test_a_slot_that_becomes_free(tmp_path: Path, holder: subprocess.Popen[bytes]) -> None:
    waiting = asyncio.create_task(SlotLock.acquire(tmp_path, 30))
    await asyncio.sleep(0)  # it has tried once
    assert not waiting.done()
    holder.kill()
    lock = await waiting
    assert (tmp_path / "boinc_lockfile").exists()
    lock.release()
    lock.release()
    assert not (tmp_path / "boinc_lockfile").exists()


def hold(directory: Path) -> bytes:
    """Return what another process prints that takes the lock and releases it."""
    command = [sys.executable, "-c", HOLDER]
    done = subprocess.run(command, cwd=directory, capture_output=True, input=b"", timeout=30)
    return done.stderr


async def test_others_see_the_lock(tmp_path: Path) -> None:
    lock = await SlotLock.acquire(tmp_path, 0)
    assert b"BlockingIOError" in await asyncio.to_thread(hold, tmp_path)
    lock.release()
    assert await asyncio.to_thread(hold, tmp_path) == b""


async def test_a_slot_where_nothing_can_be_locked(tmp_path: Path) -> None:
    (tmp_path / "boinc_lockfile").symlink_to("elsewhere")
    with pytest.raises(HostError, match="cannot be locked"):
        await SlotLock.acquire(tmp_path, 0)
    assert not (tmp_path / "elsewhere").exists()


class Location:
    """A slot and a project beneath one BOINC directory, and a file outside."""

    def __init__(self, directory: Path) -> None:
        self.slot = directory / "boinc/slots/0"
        self.project = directory / "boinc/projects/p"
        self.slot.mkdir(parents=True)
        self.project.mkdir(parents=True)
        (self.project / "in").write_text("x")
        (directory / "secret").write_text("x")
        self.init_data = InitData(
            project_directory=str(self.project), boinc_directory=str(directory / "boinc")
        )

    def soft_link(self, name: str, target: str) -> None:
        (self.slot / name).write_text(f"<soft_link>{target}</soft_link>\n")

    def resolve(self, name: str) -> Path:
        return resolve(self.slot, name, self.init_data)


@pytest.fixture
def location(tmp_path: Path) -> Location:
    return Location(tmp_path)


def test_soft_links_and_symbolic_links(location: Location) -> None:
    location.soft_link("in", "../../projects/p/in")
    location.soft_link("out", "../../projects/p/not_yet")
    (location.slot / "link").symlink_to("../../projects/p/in")
    (location.slot / "sub").mkdir()
    (location.slot / "sub/copy").write_text("no link")
    assert location.resolve("in") == location.project / "in"
    assert location.resolve("out") == location.project / "not_yet"
    assert location.resolve("link") == location.project / "in"
    assert location.resolve("sub/copy") == location.slot / "sub/copy"
    assert location.resolve("nothing") == location.slot / "nothing"


@pytest.mark.parametrize(
    "target",
    [
        "../../../secret",
        "/etc/passwd",
        "../../projects/p/../../../secret",
        "../../projects/p",
        "../../projects/other/in",
        "..",
        ".",
        "trap/../secret",
        "a\0b",
    ],
)
def test_links_that_lead_out(location: Location, target: str) -> None:
    (location.slot / "trap").symlink_to("../../../x")
    location.soft_link("in", target)
    with pytest.raises(SoftLinkError):
        location.resolve("in")
    if "\0" not in target:
        (location.slot / "link").symlink_to(target)
        with pytest.raises(SoftLinkError):
            location.resolve("link")


def test_a_link_in_the_project_that_leads_out(location: Location) -> None:
    (location.project / "evil").symlink_to("../../../secret")
    location.soft_link("in", "../../projects/p/evil")
    with pytest.raises(SoftLinkError, match="in neither the slot nor"):
        location.resolve("in")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "", ".", "a/../../x", "a\0b", "\ud800"])
def test_names_that_are_none(location: Location, name: str) -> None:
    with pytest.raises(SoftLinkError, match="not a file of the slot"):
        location.resolve(name)


def test_without_a_project_only_the_slot_counts(location: Location) -> None:
    location.soft_link("in", "../../projects/p/in")
    with pytest.raises(SoftLinkError):
        resolve(location.slot, "in", None)


def test_a_pipe_is_not_waited_for(location: Location) -> None:
    os.mkfifo(location.slot / "pipe")
    assert location.resolve("pipe") == location.slot / "pipe"


@given(st.binary(max_size=600))
def test_any_content_resolves_to_inside_or_raises(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    location = Location(tmp_path_factory.mktemp("place"))
    (location.slot / "f").write_bytes(b"<soft_link>" + content)
    try:
        found = location.resolve("f")
    except SoftLinkError:
        return
    assert found.is_relative_to(location.slot) or found.is_relative_to(location.project)


@pytest.mark.parametrize(
    ("status", "message", "notice", "content"),
    [
        (0, "", False, "0\n"),
        (206, "no\nsuch  file", False, "206\nno such file\n\n"),
        (1, "see here", True, "1\nsee here\nnotice\n"),
    ],
)
def test_the_finish_file(
    tmp_path: Path, status: int, message: str, notice: bool, content: str
) -> None:
    write_finish_file(tmp_path, status, message, notice=notice)
    assert (tmp_path / "boinc_finish_called").read_text() == content
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("delay", "notice", "content"),
    [(12, False, "12\nwhy\n"), (1e9, True, "86400\nwhy\nnotice\n"), (-3, False, "0\nwhy\n")],
)
def test_the_temporary_exit_file(tmp_path: Path, delay: float, notice: bool, content: str) -> None:
    write_temporary_exit_file(tmp_path, delay, "why", notice=notice)
    assert (tmp_path / "boinc_temporary_exit").read_text() == content


@pytest.mark.parametrize("reason", ["", " \n"])
def test_a_temporary_exit_without_a_reason(tmp_path: Path, reason: str) -> None:
    with pytest.raises(ValueError, match="needs a reason"):
        write_temporary_exit_file(tmp_path, 1, reason)
    assert list(tmp_path.iterdir()) == []


@given(st.text())
def test_a_message_is_one_line_that_the_client_can_read(text: str) -> None:
    line = message_line(text)
    assert len(line) <= 254
    assert b"\n" not in line
    assert line == line.strip()
    line.decode()  # no character was cut in two


def test_a_trickle_up(tmp_path: Path) -> None:
    write_trickle_up(tmp_path, "a<b", "<done>1</done>")
    content = (tmp_path / "trickle_up.xml").read_text()
    assert content == "<variety>a&lt;b</variety>\n<done>1</done>"
    with pytest.raises(ValueError, match="a trickle of more than"):
        write_trickle_up(tmp_path, "a", "x" * LARGEST_TRICKLE)


def test_trickle_downs(tmp_path: Path) -> None:
    for name in ("trickle_down_2", "x_trickle_down_1", "other"):
        (tmp_path / name).touch()
    (tmp_path / "trickle_down_3").symlink_to("/nowhere/passwd")
    assert [path.name for path in trickle_downs(tmp_path)] == ["trickle_down_2", "x_trickle_down_1"]


@pytest.mark.parametrize(
    ("content", "status"),
    [("<status>0</status>", 0), ("<status>-131</status>\n", -131), ("x", None)],
)
def test_an_upload(tmp_path: Path, content: str, status: int | None) -> None:
    write_upload_request(tmp_path, "out")
    assert (tmp_path / "boinc_ufr_out").exists()
    assert upload_status(tmp_path, "out") is None
    (tmp_path / "boinc_ufs_out").write_text(content)
    assert upload_status(tmp_path, "out") == status


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a\0"])
def test_an_upload_of_no_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not the name"):
        write_upload_request(tmp_path, name)
