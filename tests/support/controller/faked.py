"""A controller whose machines have real shims but are fake."""

import pytest

from boincvm.controller.machines import local_machine
from support import with_support


@pytest.fixture
def fake_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make all further machines of this process's controllers fake."""
    monkeypatch.setattr(local_machine, "_SHIM", "support.controller.fake_shim")
    monkeypatch.setenv("PYTHONPATH", with_support()["PYTHONPATH"])
