"""A controller whose machines have shims of their own, and are none."""

import pytest

from boincvm.controller.machines import local_machine
from support import with_support


@pytest.fixture
def fake_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of controllers of this process from now on."""
    monkeypatch.setattr(local_machine, "_SHIM", "support.controller.fake_shim")
    monkeypatch.setenv("PYTHONPATH", with_support()["PYTHONPATH"])
