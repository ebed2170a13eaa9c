"""Whether the file system of an image has a journal: those that older versions built have none."""

import os
import struct
from pathlib import Path
from tempfile import TemporaryFile

from boincvm.hypervisor.contract import DiskRangeError
from boincvm.hypervisor.disk_reader import open_disk

_SUPERBLOCK, _SIZE = 1024, 1024
_MAGIC_AT, _MAGIC = 0x38, 0xEF53
_FEATURES_AT, _HAS_JOURNAL = 0x5C, 0x4


def has_journal(root: Path) -> bool:
    """Tell whether an image's root disk is an ext4 file system with a journal.

    Raises OSError, HypervisorError for a disk that is refused.
    """
    reader = open_disk([], root, "qcow2")
    try:
        with TemporaryFile() as copy:
            reader.copy(_SUPERBLOCK, _SIZE, copy.fileno(), 0)
            copy.seek(0, os.SEEK_SET)
            superblock = copy.read(_SIZE).ljust(_SIZE, b"\0")
    except DiskRangeError:
        return False  # nothing is stored there
    finally:
        reader.close()
    (magic,) = struct.unpack_from("<H", superblock, _MAGIC_AT)
    (features,) = struct.unpack_from("<I", superblock, _FEATURES_AT)
    return magic == _MAGIC and bool(features & _HAS_JOURNAL)
