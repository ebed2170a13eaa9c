"""`boincvm shell`: what it refuses before anything is asked of a machine."""

import os

import pytest

from boincvm.cli import shell
from boincvm.cli.main import main
from boincvm.errors import UsageError
from boincvm.exit_codes import ExitCode


def test_standard_input_is_no_terminal(capfd):
    nowhere, kept = os.open(os.devnull, os.O_RDONLY), os.dup(0)
    os.dup2(nowhere, 0)
    try:
        assert main(["shell", "--controller", "unix:/nowhere", "web.1"]) == ExitCode.USAGE
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(nowhere)
    told = capfd.readouterr().err
    assert "a shell needs a terminal, and standard input is none" in told
    assert "boincvm exec" in told


class Told:
    def __init__(self, **vm: object) -> None:
        self._vm = {"id": "a", "is_local": True, **vm}

    def call(self, operation: str, **_arguments: object) -> dict[str, object]:
        assert operation == "list"
        return {"vms": [self._vm]}


@pytest.mark.parametrize(
    ("state", "hint"),
    [
        ("powered_off", "boincvm start a"),
        ("saved", "boincvm start a"),
        ("paused", "boincvm resume a"),
        ("stuck", "boincvm reset a"),
        ("stopping", "boincvm ls a"),
    ],
)
def test_a_machine_that_does_not_run(state, hint):
    with pytest.raises(UsageError, match=f"the machine a is {state.replace('_', ' ')}") as refused:
        shell._only(Told(state=state), "a")
    assert refused.value.hint == hint


def test_a_guest_that_says_nothing_of_its_state_may_run():
    assert shell._only(Told(state="unknown", is_local=False), "a") == "a"
