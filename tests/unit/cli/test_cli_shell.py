"""`boincvm shell`: what it refuses before it sends any request to a machine."""

import os

from boincvm.cli import shell
from boincvm.cli.main import main
from boincvm.exit_codes import ExitCode


def test_standard_input_is_no_terminal(capfd):
    nowhere, stored = os.open(os.devnull, os.O_RDONLY), os.dup(0)
    os.dup2(nowhere, 0)
    try:
        assert main(["shell", "--controller", "unix:/nowhere", "web.1"]) == ExitCode.USAGE
    finally:
        os.dup2(stored, 0)
        os.close(stored)
        os.close(nowhere)
    reported = capfd.readouterr().err
    assert "a shell needs a terminal, and standard input is not one" in reported
    assert "boincvm exec" in reported


class Recorder:
    def __init__(self, **vm: object) -> None:
        self._vm = {"id": "a", "is_local": True, **vm}

    def call(self, operation: str, **_arguments: object) -> dict[str, object]:
        assert operation == "list"
        return {"vms": [self._vm]}


def test_a_guest_that_says_nothing_of_its_state_may_run():
    assert shell._only(Recorder(state="unknown", is_local=False), "a") == "a"
