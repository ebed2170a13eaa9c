"""SPECIFICATION.md names tests that exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_specification_names_tests_that_exist():
    text = (ROOT / "SPECIFICATION.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > 30
    functions = {
        path: {getattr(node, "name", "") for node in ast.walk(ast.parse((ROOT / path).read_text()))}
        for path in {path for path, _ in named}
    }
    for path, name in named:
        assert name in functions[path], f"{path}::{name}"
