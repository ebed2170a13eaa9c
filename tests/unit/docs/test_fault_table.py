"""docs/drivers.md says of each driver and each fault which tests show what happens then."""

import ast
import re
from pathlib import Path

from boincvm.hypervisor.registry import BUILT_IN

ROOT = Path(__file__).parents[3]
BEGIN, END = "<!-- faults -->\n", "<!-- end of faults -->"


def rows() -> list[list[str]]:
    text = (ROOT / "docs/drivers.md").read_text().partition(BEGIN)[2].partition(END)[0]
    return [
        [cell.strip() for cell in line.strip("|\n").split("|")] for line in text.splitlines()[2:]
    ]


def test_each_driver_has_a_row_for_each_fault() -> None:
    faults = dict.fromkeys(row[0] for row in rows())
    drivers = {name for name in BUILT_IN if name != "fake"}
    assert len(faults) > 5
    for fault in faults:
        found = [row[1].strip("`") for row in rows() if row[0] == fault]
        assert sorted(found) == sorted(drivers), fault


def test_the_tests_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", "".join(row[2] for row in rows()))
    assert len(named) > 30
    for path, name in named:
        tree = ast.parse((ROOT / path).read_text())
        assert name in {getattr(node, "name", "") for node in ast.walk(tree)}, f"{path}::{name}"
