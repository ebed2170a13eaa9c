"""What tests of the real VirtualBox take, and how they are reported where it cannot be had."""

import os

import pytest

from support.not_run import not_run
from support.virtualbox.root import RealVirtualBox, UnavailableError, real_virtualbox


def use_virtualbox(monkeypatch: pytest.MonkeyPatch, *, stock: bool = False) -> RealVirtualBox:
    """Put the real VirtualBox on PATH; where it cannot be had, the test is not run.

    `stock`: with the package's own VBoxHeadless.
    """
    try:
        real = real_virtualbox()
    except UnavailableError as reason:
        not_run("the real VirtualBox", reason)
    programs = real.stock if stock else real.programs
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return real
