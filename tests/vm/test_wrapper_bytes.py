"""A machine's task: bytes stay unchanged, streams may be FIFOs, and nothing that the project can
see reveals the computer's owner."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from boincvm.boinc import Control
from boincvm.boinc.testing import EndKind
from support.slot import Slot

pytestmark = [pytest.mark.timeout(280), pytest.mark.usefixtures("base_image")]

E = os.fsdecode(b"\xe9")
"""é in Latin-1; in UTF-8 no character."""
TELL_TALE = "volunteer-name-7f3a"
SOON = 20.0
"""Seconds; the machine is up already, and the test computer busy."""


@pytest_asyncio.fixture
async def slot(tmp_path: Path) -> AsyncIterator[Slot]:
    home = tmp_path / TELL_TALE
    home.mkdir()
    async with Slot(home, period=0.25) as slot:
        yield slot


async def test_bytes_a_fifo_and_whose_it_is(slot: Slot) -> None:
    """A daemon feeds the program in the machine, and another reads its output."""
    for name in ("feed", "read"):
        os.mkfifo(slot.path / name)
    slot.slot.project_preferences = "<p>caf\xe9</p>"
    slot.slot.write_init_data()
    script = (
        'printf "%s\\n" "$0" "$@" "$V"; cat; cp i? o' + E + "; env >&2; cat init_data.xml >&2\n"
        f"echo caf{E} >m{E}; echo trickle-up v $PWD/m{E} >$BOINCVM_STATUS_CHANNEL"
    )
    program = slot.path / f"app{E}"
    program.write_bytes(os.fsencode(f"#!/bin/sh\n{script}\n"))
    program.chmod(0o755)
    (slot.path / f"i{E}").write_bytes(b"content\n")
    feeds = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo $i; done; exec sleep 1000"
    sh = "<application>/bin/sh</application><daemon/>"
    (slot.path / "job.xml").write_bytes(
        os.fsencode(
            f"<job_desc><!-- {E} --><task>{sh}<command_line>-c '{feeds}'</command_line>"
            "<stdout_filename>feed</stdout_filename></task>"
            f"<task>{sh}<command_line>-c 'cat >out; exec sleep 1000'</command_line>"
            "<stdin_filename>read</stdin_filename></task>"
            f"<task><virtualmachine>vm</virtualmachine><application>app{E}</application>"
            f"<copy_app_to_VM/><copy_file_to_VM>i{E}</copy_file_to_VM>"
            f"<copy_file_from_VM>o{E}</copy_file_from_VM><setenv>V={E}\xe9</setenv>"
            f"<command_line>caf&#195;&#169; caf{E} boinc_resolve(i{E})</command_line>"
            "<stdin_filename>feed</stdin_filename><stdout_filename>read</stdout_filename></task>"
            "<task><application>/bin/sh</application>"
            "<command_line>-c 'until grep -q 20000 out; do sleep 0.05; done'</command_line></task>"
            "<task><virtualmachine>vm</virtualmachine><application>sh</application>"
            f"<command_line>-c 'echo finish 0 0 adieu caf{E} >$BOINCVM_STATUS_CHANNEL'"
            "</command_line></task>"
            "</job_desc>"
        ).replace(b"exec sleep 1000'</command_line><stdout", b"'</command_line><stdout")
    )
    end = await slot.run()
    assert (end.kind, end.status) == (EndKind.FINISHED, 0), slot.stderr
    words = [f"/work/app{E}", "caf\xe9", f"caf{E}", f"i{E}", f"{E}\xe9"]
    numbers = "".join(f"{number}\n" for number in range(1, 20001)).encode()
    assert (slot.path / "out").read_bytes() == os.fsencode("\n".join(words)) + b"\n" + numbers
    assert (slot.path / f"o{E}").read_bytes() == b"content\n"
    assert [os.fsencode(output.value) for output in slot.trickle_ups] == [
        b"<variety>v</variety>\ncaf\xe9\n"
    ]
    assert b"adieu caf\xe9\n" in (slot.path / "boinc_finish_called").read_bytes()
    stderr = (slot.path / "stderr.txt").read_bytes()
    assert b"app\xe9 ended successfully" in stderr
    assert "<p>caf\xe9</p>".encode() in stderr
    assert TELL_TALE.encode() not in stderr


@pytest.mark.parametrize("control", [Control.ABORT, Control.QUIT])
async def test_an_output_that_nobody_reads(slot: Slot, control: Control) -> None:
    """The machine's program waits for it; the client is still obeyed."""
    os.mkfifo(slot.path / "out")
    slot.machine_job("echo begun >&2; exec sleep 1000")
    await slot.begin()
    await slot.holds(lambda: bool(slot.machines()))
    status = await slot.status()
    await slot.holds(lambda: slot.statuses[-1].value.cpu_time >= status.cpu_time)
    slot.send(Control.SUSPEND)
    slot.send(Control.RESUME)
    slot.send(control)
    end = await slot.wait(SOON)
    assert end.kind is (EndKind.ABORTED if control is Control.ABORT else EndKind.QUIT), slot.stderr
    assert "begun" not in slot.stderr
    assert "Traceback" not in slot.stderr


@pytest.mark.parametrize(
    ("stream", "status", "what"), [("stdin", 206, "read"), ("stderr", 195, "written")]
)
async def test_a_stream_that_is_a_directory(
    slot: Slot, stream: str, status: int, what: str
) -> None:
    (slot.path / "f").mkdir()
    slot.machine_job("true", f"<{stream}_filename>f</{stream}_filename>")
    end = await slot.run()
    assert (end.kind, end.status) == (EndKind.FAILED, status), slot.stderr
    assert end.text.endswith(f"f cannot be {what}: Is a directory")
    assert TELL_TALE not in slot.stderr
