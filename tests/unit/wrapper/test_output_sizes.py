"""The sizes of output files when their tasks started."""

from pathlib import Path

import pytest

from boincvm.wrapper.slot.state import SIZES_FILE, sizes_at_begin


def test_a_task_that_is_begun_again_learns_of_its_first_beginning(tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    out.write_bytes(b"before")
    files = {"stdout": out, "stderr": log}
    assert sizes_at_begin(tmp_path, 0, files) == {"stdout": 6, "stderr": 0}
    out.write_bytes(b"before and after")
    log.write_bytes(b"words")
    assert sizes_at_begin(tmp_path, 0, files) == {"stdout": 6, "stderr": 0}


def test_tasks_that_share_a_file(tmp_path: Path) -> None:
    """If an earlier task runs again, the later one continues after its output."""
    out = tmp_path / "out"
    assert sizes_at_begin(tmp_path, 0, {"stdout": out}) == {"stdout": 0}
    out.write_bytes(b"zero")
    assert sizes_at_begin(tmp_path, 1, {"stdout": out}) == {"stdout": 4}
    out.write_bytes(b"zero, one")
    assert sizes_at_begin(tmp_path, 1, {"stdout": out}) == {"stdout": 4}
    assert sizes_at_begin(tmp_path, 0, {"stdout": out}) == {"stdout": 0}
    out.write_bytes(b"longer zero")
    assert sizes_at_begin(tmp_path, 1, {"stdout": out}) == {"stdout": 11}


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b'{"0": 1}', b'{"0": {"stdout": -1}}', b'{"x": {}}', b"[" * 9999],
)
def test_a_file_that_makes_no_sense(tmp_path: Path, content: bytes) -> None:
    (tmp_path / SIZES_FILE).write_bytes(content)
    (tmp_path / "out").write_bytes(b"1234")
    assert sizes_at_begin(tmp_path, 0, {"stdout": tmp_path / "out"}) == {"stdout": 4}


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text('{"0": {"stdout": 1}}')
    (tmp_path / SIZES_FILE).symlink_to("elsewhere")
    (tmp_path / "out").write_bytes(b"1234")
    assert sizes_at_begin(tmp_path, 0, {"stdout": tmp_path / "out"}) == {"stdout": 4}
    assert (tmp_path / "elsewhere").read_text() == '{"0": {"stdout": 1}}'
