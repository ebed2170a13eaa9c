"""`boincvm image from-machine`: what it asks of a controller, which is a stand-in, and prints."""

import argparse
from contextlib import nullcontext

import pytest

from boincvm.cli import controller_options, image


class Controller:
    """Stands for a controller; records the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, object]]] = []

    def call(self, verb: str, **options: object) -> dict[str, object]:
        self.calls.append((verb, options))
        return {"name": options["name"], "digest": "0" * 64}


@pytest.mark.parametrize(
    ("words", "force", "runs_here"),
    [
        ([], False, True),
        (["--force", "--controller", "unix:/nowhere"], True, True),
        (["--controller", "http://elsewhere:8080"], False, False),
    ],
)
def test_what_it_asks_and_says(
    words: list[str],
    force: bool,
    runs_here: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The image is on the controller's host, where alone jobs can run with it."""
    monkeypatch.delenv("BOINCVM_CONTROLLER", raising=False)
    monkeypatch.setenv("BOINCVM_TOKEN", "x")
    controller = Controller()
    monkeypatch.setattr(controller_options, "client_of", lambda _: controller)
    monkeypatch.setattr(controller_options, "waiting", lambda _: nullcontext())
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(command=None)  # what verbs.prepare does
    image.add_arguments(parser)
    assert image.run(parser.parse_args(["from-machine", "web.1", "web", *words])) == 0
    assert controller.calls == [
        ("image_from_machine", {"vm": "web.1", "name": "web", "force": force})
    ]
    printed = capsys.readouterr()
    assert ("boincvm run --image web" in printed.out) is runs_here
    assert "boincvm create --image web" in printed.out
    assert "deleted files" in printed.err
