"""What takes long is named on a terminal meanwhile, and the line is gone afterwards."""

import threading
from functools import partial
from itertools import count

import pytest

from boincvm import standard_error
from boincvm.cli import checks, controller_options
from boincvm.cli.main import main
from boincvm.hypervisor.verdict import Isolation, Speed, Verdict
from boincvm.machine.golden import maker

CLEARED = "\r\x1b[K"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standard_error, "is_terminal", lambda: True)


@pytest.mark.usefixtures("terminal")
def test_warming(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    async def warm_image(*_: object, **__: object) -> bool:
        assert capfd.readouterr().err.endswith("boincvm: booting a machine of base, from which "
                                               "others will start …")  # fmt: skip
        return True

    monkeypatch.setattr(maker, "warm_image", warm_image)
    assert main(["image", "warm", "base"]) == 0
    printed = capfd.readouterr()
    assert printed.err == CLEARED
    assert "start from a snapshot now" in printed.out


@pytest.mark.usefixtures("terminal")
def test_the_seconds_move(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    moved = threading.Event()

    def show(text: str) -> None:
        shown.append(text)
        if len(shown) > 4:
            moved.set()

    monkeypatch.setattr(standard_error, "show", show)
    monkeypatch.setattr(controller_options, "_PERIOD", 0.001)
    monkeypatch.setattr(controller_options, "monotonic", partial(next, count(100.2)))
    with controller_options.waiting("starting web.1") as progress:
        assert moved.wait(30)
        progress(1, 2)
    assert shown[0] == "\rboincvm: starting web.1 … 1 s"
    assert shown[3] == "\rboincvm: starting web.1 … 4 s"
    assert any(line.startswith("\rboincvm: starting web.1 … 50 % ") for line in shown)
    assert shown[-1] == CLEARED


@pytest.mark.usefixtures("terminal")
def test_doctor(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """The drivers and findings are stand-ins: this host's own may say more, or take long."""

    def verdicts() -> object:
        assert capfd.readouterr().err == "\rboincvm: examining this host …"
        return {"qemu": Verdict("7.2", isolation=Isolation.SANDBOX, speed=Speed.EMULATED)}, []

    monkeypatch.setattr(checks, "verdicts", verdicts)
    monkeypatch.setattr(checks, "groups", lambda: checks.Groups((), (), ()))
    main(["doctor", "--json"])
    assert capfd.readouterr().err == CLEARED
