"""Copies of a golden snapshot's memory file, in which a domain's names are others."""

import os
from pathlib import Path

import pytest

from boincvm.errors import HypervisorError
from boincvm.hypervisor.libvirt.golden import read_golden, write_renamed

NAMES = {"0123abcd": "89abcdef", "id-of-old": "id-of-new"}
HEADER = b"LibvirtQemudSave\x02\0\0\0"
DEFINITION = b"<domain><name>boincvm-0123abcd</name><uuid>id-of-old</uuid></domain>"


def test_only_the_names_are_changed(tmp_path: Path) -> None:
    """And these only in the definition, whatever the guest's memory is."""
    memory = os.urandom(1 << 20) + b"0123abcd id-of-old </domain>"
    (tmp_path / "golden").write_bytes(HEADER + DEFINITION + memory)
    write_renamed(tmp_path / "golden", tmp_path / "copy", NAMES)
    expected = b"<domain><name>boincvm-89abcdef</name><uuid>id-of-new</uuid></domain>"
    assert (tmp_path / "copy").read_bytes() == HEADER + expected + memory


@pytest.mark.parametrize("content", [b"", HEADER + DEFINITION[:-1], HEADER + b"<domain></domain>"])
def test_a_file_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "golden").write_bytes(content)
    with pytest.raises(HypervisorError, match="not as libvirt writes it"):
        write_renamed(tmp_path / "golden", tmp_path / "copy", NAMES)


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_table_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "libvirt.json").write_text(text)
    with pytest.raises(HypervisorError):
        read_golden(tmp_path)
