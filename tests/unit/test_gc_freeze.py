"""Imports without garbage collection (gc_freeze.py), each in a separate process."""

import subprocess
import sys

_IMPORTS = """
import gc
from boincvm.gc_freeze import defer_collection, freeze_imports, late_imports
"""


def _run(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTS + code], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_late_imports_are_frozen_like_the_first() -> None:
    code = """
defer_collection()
freeze_imports()
before = gc.get_freeze_count()
with late_imports():
    print(gc.isenabled())
    import decimal
print(gc.isenabled(), gc.get_freeze_count() > before)
"""
    assert _run(code) == ["False", "True", "True"]


def test_a_process_that_froze_nothing_is_left_alone() -> None:
    code = """
with late_imports():
    print(gc.isenabled())
print(gc.get_freeze_count() == 0)
"""
    assert _run(code) == ["True", "True"]


def test_the_collector_is_on_again_after_an_import_that_fails() -> None:
    code = """
defer_collection()
freeze_imports()
try:
    with late_imports():
        import boincvm.there_is_no_such_module
except ImportError:
    print(gc.isenabled())
"""
    assert _run(code) == ["True"]
