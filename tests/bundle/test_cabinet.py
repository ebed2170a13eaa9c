"""The cabinet that a folder for Windows is packed as; test_windows_main.py has it unpacked."""

import os
import random
import struct
import zlib
from pathlib import Path

import pytest

from boincvm.project.bundle.cabinet import pack_cabinet

LARGEST_BLOCK = 32768 + 12
"""Bytes that a compressed block may have."""


def unpacked(archive: bytes) -> tuple[list[str], bytes]:
    """Return the names of a cabinet's files, and the content of all of them."""
    (signature, size, first_file, version, folders, files) = struct.unpack_from(
        "<4s4xI4xI4xHHH", archive
    )
    assert (signature, size, version, folders) == (b"MSCF", len(archive), 0x103, 1)
    at, blocks, kind = struct.unpack_from("<IHH", archive, 36)
    assert kind == 1
    names, next_name, total = [], first_file, 0
    for _ in range(files):
        length, begin = struct.unpack_from("<II", archive, next_name)
        assert begin == total
        total += length
        end = archive.index(b"\0", next_name + 16)
        names.append(archive[next_name + 16 : end].decode())
        next_name = end + 1
    assert next_name == at
    content = b""
    for _ in range(blocks):
        _, packed, length = struct.unpack_from("<IHH", archive, at)
        block = archive[at + 8 : at + 8 + packed]
        assert block[:2] == b"CK"
        assert len(block) <= LARGEST_BLOCK
        inflate = zlib.decompressobj(-15, zdict=content[-32768:])
        content += inflate.decompress(block[2:])
        assert inflate.eof
        at += 8 + packed
        assert len(content) % 32768 in (length % 32768, 0)
    assert (at, len(content)) == (len(archive), total)
    return names, content


def test_all_of_a_folder_is_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "lib/empty").mkdir(parents=True)
    files = {
        "a.txt": b"",
        "lib/large": b"all the same " * 10000,
        "lib/random": random.Random(1).randbytes(100_000),
        "manifest": b"x",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    pack_cabinet(folder, "boincvm", tmp_path / "a.cab")
    names, content = unpacked((tmp_path / "a.cab").read_bytes())
    assert names == ["boincvm\\" + name.replace("/", "\\") for name in files]
    assert content == b"".join(files.values())


def test_equal_folders_are_packed_equally(tmp_path: Path) -> None:
    packed = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "program").write_text("x")
        os.utime(tmp_path / name / "program", (len(packed), len(packed)))
        pack_cabinet(tmp_path / name, "boincvm", tmp_path / f"{name}.cab")
        packed.append((tmp_path / f"{name}.cab").read_bytes())
    assert packed[0] == packed[1]


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.cab").write_text("mine")
    with pytest.raises(FileExistsError):
        pack_cabinet(tmp_path, "boincvm", tmp_path / "a.cab")
