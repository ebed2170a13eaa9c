"""A folder packed into one file, equal for equal folders."""

import tarfile
import zipfile
from pathlib import Path

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of a file in an archive: the first that zip knows."""


def pack_tar(folder: Path, name: str, archive: Path) -> None:
    """Pack `folder` under `name` as a .tar.xz, without owner and times; programs stay programs."""
    with tarfile.open(archive, "w:xz", format=tarfile.GNU_FORMAT) as tar:
        for path in _files(folder):
            entry = tarfile.TarInfo(f"{name}/{path.relative_to(folder).as_posix()}")
            entry.size = path.stat().st_size
            entry.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            with path.open("rb") as file:
                tar.addfile(entry, file)


def pack_zip(folder: Path, name: str, archive: Path) -> None:
    """Pack `folder` under `name` as a .zip, with no times."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for path in _files(folder):
            entry = zipfile.ZipInfo(f"{name}/{path.relative_to(folder).as_posix()}", EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            file.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED, 9)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
