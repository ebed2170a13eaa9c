"""The page and the picture of the architecture name what there is."""

import re
from pathlib import Path

from boincvm.hypervisor.registry import BUILT_IN

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "src/boincvm"
PAGE = (ROOT / "docs/architecture.md").read_text()
PICTURE = (ROOT / "docs/architecture.svg").read_text()
ROOTS = (ROOT, ROOT / "docs", PACKAGE, PACKAGE / "hypervisor", PACKAGE / "hypervisor/qemu")
"""What its paths begin from."""


def test_the_picture_has_every_folder_and_every_driver() -> None:
    drawn = set(re.findall(r"\b(\w+)/", PICTURE))
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders | set(BUILT_IN) <= drawn


def test_every_path_on_the_page_exists() -> None:
    paths = {path for path in re.findall(r"`([a-z_./]+)`", PAGE) if "/" in path or "." in path}
    paths -= {"/proc", "job.toml", "job.xml"}
    assert len(paths) > 20
    assert [path for path in paths if not any((root / path).exists() for root in ROOTS)] == []
