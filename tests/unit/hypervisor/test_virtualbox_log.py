"""`VBox.log`, which is watched while a machine runs: lines as VirtualBox 7.2 wrote them."""

import asyncio
from pathlib import Path

import pytest

from boincvm import redaction
from boincvm.hypervisor.virtualbox.machine_log import MachineLog

LIMIT = 60.0
BEGIN = (
    "VirtualBox VM 7.2.22_Debian r175245 linux.amd64\n00:00:01.879866 Console: state 'Running'\n"
)
FULL = "00:00:08.022370 VM: Raising runtime error 'DrvVD_DISKFULL' (fFlags=0x6)\n"
SUSPENDED = (
    "00:00:08.030494 Console: Machine state changed to 'Paused'\n"
    "00:00:08.030878 Console: VM runtime error: fatal=false, errorID=DrvVD_DISKFULL\n"
    "00:00:08.040000 PDMR3Suspend: 8 ns run time\n"
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "VBox.log"
    path.write_text(BEGIN)
    return path


def append(file: Path, text: str) -> None:
    with file.open("a") as log:
        log.write(text)


@pytest.mark.parametrize("pieces", [[FULL], [FULL[:30], FULL[30:]], list(FULL)])
async def test_a_full_disk_is_reported_once(file: Path, pieces: list[str]) -> None:
    reported: list[str] = []
    received = asyncio.Event()

    def report() -> None:
        reported.append("full")
        received.set()

    log = MachineLog(file, report)
    try:
        assert not log.is_disk_full
        for piece in pieces:
            append(file, piece)
            await asyncio.sleep(0)
        async with asyncio.timeout(LIMIT):
            await received.wait()
        append(file, SUSPENDED)
    finally:
        log.close()
    assert log.is_disk_full
    assert reported == ["full"]
    assert log.cause().startswith("Console: VM runtime error: fatal=false")


async def test_what_stands_there_already_is_read(file: Path) -> None:
    append(file, FULL)
    log = MachineLog(file, lambda: None)
    log.close()
    assert log.is_disk_full


async def test_a_guest_cannot_say_so(file: Path) -> None:
    append(file, f"00:00:09.000000 VMMDev: Guest Log: {FULL}")
    log = MachineLog(file, lambda: None)
    log.close()
    log.close()
    assert not log.is_disk_full


async def test_the_last_words_of_a_log_without_trouble(file: Path) -> None:
    log = MachineLog(file, lambda: None)
    log.close()
    assert log.cause() == "Console: state 'Running'"


async def test_a_folder_is_hidden_before_a_line_is_cut(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redaction, "_hidden", {})
    monkeypatch.setattr(redaction, "_pattern", None)
    redaction.hide("/home/somebody", "~")
    append(file, f"00:00:09.000000 {'x' * 190} /home/somebody/disk.vdi\n")
    log = MachineLog(file, lambda: None)
    log.close()
    assert log.cause() == f"{'x' * 190} ~/disk.vd"


async def test_a_log_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        MachineLog(tmp_path / "VBox.log", lambda: None)
