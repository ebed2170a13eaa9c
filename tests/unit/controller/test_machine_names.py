"""Machines' names, which are file names, parts of topics and logins; and the directory's owner."""

import stat
from pathlib import Path

import pytest

from boincvm.bus.topics import is_destination
from boincvm.controller.controller import run_controller
from boincvm.controller.operations import call
from boincvm.controller.protocol.envelope import GUEST
from boincvm.controller.protocol.guest import check_id
from boincvm.controller.protocol.selector import parse_selector
from boincvm.errors import UsageError


@pytest.mark.parametrize("name", ["a", "1.2.7", "web-1_x", "a" * 64, ".".join("a" * 15), "ALL"])
def test_each_can_be_addressed(name: str) -> None:
    assert check_id(name) == name
    assert parse_selector(name).only == name
    assert is_destination(GUEST + name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "../a", ".a", "a.", "a..b", "-a", "a*", "all", "a b", "ä", "a\n",
     "a" * 65, ".".join("a" * 16), None, 1],
)  # fmt: skip
def test_what_is_none(name: object) -> None:
    with pytest.raises(UsageError):
        check_id(name)


async def test_a_machine_is_not_taken_for_the_controller(tmp_path: Path) -> None:
    for _ in range(2):
        async with run_controller(tmp_path / "c") as controller:
            if not controller.machines.all():
                await call(controller, "create", {"name": "controller", "memory": "256M"})
            accounts = controller.side.broker.accounts  # type: ignore[union-attr]
            known = controller.machines.find("controller").directory.bus()  # type: ignore[union-attr]
            account = accounts.verify(known.login, known.passcode)
            assert account is not None
            assert account.may_send == ("/topic/host.{login}",)
            ours = controller.side.bus._login
            assert ours != known.login
            with pytest.raises(UsageError):
                check_id(ours)


async def test_the_directory_is_its_owner_s_alone(tmp_path: Path) -> None:
    directory = tmp_path / "c"
    directory.mkdir(mode=0o755)
    async with run_controller(directory):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
