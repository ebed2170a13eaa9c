"""The client's named file mapping, by Windows' own calls."""

import mmap
import sys

import pytest

from boincvm.boinc.channels import SEGMENT_SIZE, SegmentError
from boincvm.boinc.segment import open_windows_mapping

assert sys.platform == "win32"


@pytest.mark.parametrize("prefix", ["", "Global\\"])
def test_what_one_side_writes_the_other_reads(prefix: str) -> None:
    client = mmap.mmap(-1, SEGMENT_SIZE, tagname=f"{prefix}shm_boincvm_test")
    app = open_windows_mapping("boincvm_test")
    client[1024:1027] = b"\x01<q"
    assert bytes(app.memory[1024:1027]) == b"\x01<q"
    app.memory[0:2] = b"\x01a"
    assert client[0:2] == b"\x01a"
    app.close()
    client.close()


def test_there_is_none() -> None:
    with pytest.raises(SegmentError):
        open_windows_mapping("of_nobody")
