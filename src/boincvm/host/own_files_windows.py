"""Ownership of files on Windows: access control lists are not read yet.

Import it through `own_files`.
"""

import os
from pathlib import Path

from boincvm.host.not_yet import not_yet


def check_owner(path: Path, status: os.stat_result) -> None:
    """Refuse a file that others could have written."""
    raise not_yet("whether others can write to a file of boincvm's own")
