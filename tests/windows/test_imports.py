"""Each module of the package imports on Windows."""

import importlib
import pkgutil
import re
import sys

import pytest

import boincvm

assert sys.platform == "win32"

OF_OTHERS = re.compile(r"\.host\.\w+_(posix|linux|macos)$|\.hypervisor\.libvirt\.")
"""libvirt's binding needs libvirt, which nobody builds for Windows."""
RUNS_IN_GUESTS = "boincvm.guestlink.terminal.remote"
"""A program whose text is sent to a guest, which is Linux; none of our modules imports it."""
MODULES = [
    module.name
    for module in pkgutil.walk_packages(boincvm.__path__, "boincvm.")
    if not OF_OTHERS.search(module.name) and module.name != RUNS_IN_GUESTS
]


def test_there_are_many() -> None:
    assert len(MODULES) > 300


@pytest.mark.parametrize("name", MODULES)
def test_it_imports(name: str) -> None:
    importlib.import_module(name)
