"""The main program of an app version for Windows, run under wine, where the disk is full."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.small_disk import needs_namespaces, small_disk
from support.windows.packed_folder import make_main_program
from support.windows.python import WAIT_LIMIT

TESTS = Path(__file__).parents[1]
SCRIPT = (
    'cp -r "$1/." "$2" && "$3" -m support.windows.full_disk'
    ' "$2/projects/p/main.exe" "$2/slots/0" && cat "$2/slots/0/boinc_temporary_exit"'
    ' && ls "$2/projects/p"'
)

pytestmark = [pytest.mark.timeout(WAIT_LIMIT + 1500), needs_namespaces]


def test_it_waits_for_disk_space(tmp_path: Path) -> None:
    files, disk = tmp_path / "files", tmp_path / "disk"
    project, slot = files / "projects/p", files / "slots/0"
    for directory in (project, slot, disk):
        directory.mkdir(parents=True)
    make_main_program(project / "main.exe", project / "boincvm_0.1.cab")
    link = "<soft_link>../../projects/p/boincvm_0.1.cab</soft_link>\n"
    (slot / "boincvm.cab").write_text(link)
    done = subprocess.run(
        [*small_disk("24m", disk), "sh", "-c", SCRIPT, "sh", files, disk, sys.executable],
        cwd=TESTS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, delay, reason, kind, *names = done.stdout.splitlines()
    assert json.loads(found) == [0, f"{reason}\n"]
    assert (delay, kind) == ("3600", "notice")
    assert reason == "boincvm cannot be unpacked: free some disk space"
    assert names == ["boincvm_0.1.cab", "boincvm_0.1.lock", "main.exe"]
