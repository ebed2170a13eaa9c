"""A folder packed into one file, equal for equal folders."""

import lzma
import tarfile
from pathlib import Path
from typing import IO

_DICTIONARY = 32 << 20
"""Bytes; unpacking takes as much memory."""


def pack_tar(folder: Path, name: str, archive: Path) -> None:
    """Pack `folder` under `name` as a .tar.xz, without owner and times; programs stay programs."""
    with lzma.open(archive, "wb") as stream:
        _write_tar(folder, name, stream)


def _write_tar(folder: Path, name: str, stream: IO[bytes]) -> None:
    with tarfile.open(fileobj=stream, mode="w:", format=tarfile.GNU_FORMAT) as tar:
        for path in _files(folder):
            entry = tarfile.TarInfo(f"{name}/{path.relative_to(folder).as_posix()}")
            entry.size = path.stat().st_size
            entry.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            with path.open("rb") as file:
                tar.addfile(entry, file)


def pack_programs(folder: Path, name: str, archive: Path, preset: int = 9) -> None:
    """Pack `folder` like `pack_tar`, in less space where it holds programs for x86.

    What was altered is noticed when it is unpacked: xz then has the SHA-256 of the content.
    """
    filters = (
        {"id": lzma.FILTER_X86},
        {"id": lzma.FILTER_LZMA2, "preset": preset, "dict_size": _DICTIONARY},
    )
    with lzma.open(archive, "wb", check=lzma.CHECK_SHA256, filters=filters) as stream:
        _write_tar(folder, name, stream)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
