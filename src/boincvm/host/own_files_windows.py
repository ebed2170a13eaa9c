"""Whose a file is on Windows: its access control list is not read yet; `own_files` is the face."""

import os
from pathlib import Path

from boincvm.host.not_yet import not_yet


def check_owner(path: Path, status: os.stat_result) -> None:
    """Refuse what others could have written."""
    raise not_yet("whether others can write to a file of boincvm's own")
