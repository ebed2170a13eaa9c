"""Invitations: what is invalid, where they are kept, and the command line."""

import asyncio
import json
import platform
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from boincvm.cli.main import main
from boincvm.controller.controller import run_controller
from boincvm.controller.hosts import hosts, invitations
from boincvm.controller.hosts.bus_connection import Listen
from boincvm.controller.operations import call
from boincvm.errors import HostError, UsageError
from support.certificates import Authority
from support.controller.faces import Faces
from support.controller.invited import LOOPBACK, guest, invite, until_known

pytestmark = pytest.mark.timeout(120)


# What is invalid.


@pytest.mark.parametrize("name", ["", "all", "a b", "*", "a/b", "ä", "a" * 63, ".".join("a" * 15)])
async def test_names_that_are_none(name: str, tmp_path: Path) -> None:
    async with run_controller(tmp_path / "a") as first:
        with pytest.raises(UsageError):
            await call(first, "invite", {"name": name})
        assert not (tmp_path / "a/invitations.json").exists()


async def test_each_id_has_one_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invitations, "MOST", 8)
    async with run_controller(tmp_path / "a") as first:
        await call(first, "create", {"name": "x.1", "memory": "256M"})
        with pytest.raises(UsageError, match=r"x\.1 already exists"):
            await call(first, "invite", {"name": "x"})
        with pytest.raises(UsageError, match=r"x\.1 already exists"):
            await call(first, "invite", {"name": "x.1"})
        await call(first, "invite", {"name": "x.2"})
        await call(first, "invite", {"name": "b"})
        with pytest.raises(UsageError, match="already invited") as caught:
            await call(first, "invite", {"name": "b"})
        assert "--revoke b" in caught.value.hint
        with pytest.raises(UsageError, match="b already exists"):
            await call(first, "invite", {"name": "b.c"})
        for name in ("b", "b.1"):
            with pytest.raises(UsageError, match="of the invited host b"):
                await call(first, "create", {"name": name, "memory": "256M"})
        await call(first, "create", {"name": "bb.1", "memory": "256M"})
        with pytest.raises(UsageError, match="no host 'c' is invited"):
            await call(first, "revoke", {"name": "c"})
        await call(first, "revoke", {"name": "b"})
        await call(first, "create", {"name": "b.1", "memory": "256M"})
        for number in range(invitations.MOST - 1):
            await call(first, "invite", {"name": f"host-{number}"})
        with pytest.raises(UsageError, match="8 hosts"):
            await call(first, "invite", {"name": "one-more"})


async def test_an_id_that_another_host_has(tmp_path: Path) -> None:
    async with run_controller(tmp_path / "a", listen=LOOPBACK) as first:
        location = await invite(first)
        async with (
            guest(location, "b.1", tmp_path),
            run_controller(tmp_path / "b", broker=location) as second,
        ):
            await until_known(second, "b.1")
            with pytest.raises(UsageError, match="is already on the bus, from the host far"):
                await call(second, "create", {"name": "b.1", "memory": "256M"})


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"b": 1}', '{"b": {"digest": "00", "made": 1}}', '{"b": {"digest": "xy"}}',
     '{"all": {"digest": "' + "00" * 32 + '", "made": 1}}', "[" * 60_000, " " * (1 << 20) + "{}"],
    ids=lambda text: text[:30],
)  # fmt: skip
async def test_a_damaged_file_lets_nobody_in(text: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/invitations.json").write_text(text)
    with pytest.raises(HostError, match="is damaged") as caught:
        async with run_controller(tmp_path / "a"):
            pass
    assert "invite all hosts again" in caught.value.hint


# The command line, and what it says.


@pytest.mark.parametrize(
    ("listen", "expected", "note"),
    [
        (None, "stomp://b@HOST:PORT --passcode-file passcode", "start it with --bus HOST:PORT"),
        (LOOPBACK, "stomp://b@{node}:{port} --passcode-file passcode", "no other host can reach"),
        (Listen("::1", 0), "stomp://b@{node}:{port} --passcode-file passcode", "--bus-cert"),
    ],
)
async def test_the_command_for_the_other_host(
    listen: Listen | None, expected: str, note: str, tmp_path: Path
) -> None:
    async with run_controller(tmp_path / "a", listen=listen) as first:
        reported = await call(first, "invite", {"name": "b"})
        port = first.side.address[1] if first.side.address else 0
        whole = f"boincvm controller --broker {expected}"
        assert reported["command"] == whole.format(port=port, node=platform.node())
        assert note in str(reported["notes"])


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("0.0.0.0", f"stomp://b@{platform.node()}:61613"),
        ("::", f"stomp://b@{platform.node()}:61613"),
        ("localhost", f"stomp://b@{platform.node()}:61613"),
        ("2001:db8::1", "'stomp://b@[2001:db8::1]:61613'"),
        ("big.example", "stomp://b@big.example:61613"),
    ],
)
async def test_the_name_by_which_another_host_reaches_it(
    address: str, shown: str, tmp_path: Path
) -> None:
    async with run_controller(tmp_path / "a", listen=LOOPBACK) as first:
        side = first.side._replace(listen=Listen(address, 0), address=(address, 61613))
        assert f" {shown} " in hosts._command(side, "b")


async def test_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = Authority(tmp_path, "authority").sign("bus")
    async with (
        run_controller(tmp_path / "a", listen=Listen("127.0.0.1", 0, *pair)) as first,
        AsyncExitStack() as stack,
    ):
        faces = Faces(first, tmp_path, stack)
        await faces.serve_unix()

        async def run(*words: str) -> tuple[int, str, str]:
            argv = ["invite", "--controller", f"unix:{faces.socket}", *words]
            code = await asyncio.to_thread(main, argv)
            return code, *capsys.readouterr()

        assert (await run())[1] == "no host is invited; invite one: boincvm invite NAME\n"
        code, out, err = await run("b")
        assert first.side.broker is not None
        assert code == 0
        assert first.side.broker.accounts.verify("b", out.removesuffix("\n")) is not None
        assert "--passcode-file passcode --broker-ca authority-bus.pem\n" in err
        assert out.strip() not in err
        assert (await run())[1].splitlines()[1].split()[0] == "b"
        code, out, err = await run("b")
        assert (code, out) == (UsageError.exit_code, "")
        assert "already invited" in err
        assert (await run("--revoke"))[0] == UsageError.exit_code
        assert (await run("--revoke", "b"))[:2] == (0, "b is no longer invited\n")
        assert json.loads((await run("--json"))[1]) == {"invitations": []}
        assert set(json.loads((await run("--json", "c"))[1])) == {
            "name", "passcode", "command", "notes",
        }  # fmt: skip
