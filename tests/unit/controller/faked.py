"""A controller whose machines have keepers of their own, and are none."""

import os
from pathlib import Path

import pytest

from boincvm.controller import local_machine


@pytest.fixture
def fake_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of controllers of this process from now on."""
    monkeypatch.setattr(local_machine, "_KEEPER", "fake_keeper")
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((here, os.environ.get("PYTHONPATH", ""))))
