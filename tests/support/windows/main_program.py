"""The main program of an app version for Windows, for tests on Windows: where it is."""

import os
import shutil
from pathlib import Path

from boincvm.boinc.testing import FakeSlot

MAIN_PROGRAM = "BOINCVM_TEST_MAIN_PROGRAM"
PACKED_FOLDER = "BOINCVM_TEST_PACKED_FOLDER"
"""The variables that name the files."""


def install_main_program(slot: FakeSlot) -> Path:
    """Make it and the packed folder files of the app version; return its path."""
    program = slot.project / "sim_wrapper_1.0_windows_x86_64.exe"
    shutil.copy(os.environ[MAIN_PROGRAM], program)
    shutil.copy(os.environ[PACKED_FOLDER], slot.project / "boincvm_0.1.cab")
    slot.link("boincvm.cab", "boincvm_0.1.cab")
    slot.app_files += [program.name, "boincvm_0.1.cab"]
    slot.write_init_data()
    return program
