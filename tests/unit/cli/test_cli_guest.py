"""`boincvm guest`: what it refuses, and what it reports about its host."""

import asyncio
import os
import platform
import stat
from pathlib import Path

import pytest

from boincvm.bus.broker_address import BrokerAddress
from boincvm.cli.main import main
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import HostError, UsageError
from boincvm.exit_codes import ExitCode
from boincvm.host import resources
from boincvm.node import host_node
from boincvm.node.host_node import HostLoad, guest_of_this_host

LAB = BrokerAddress("lab", "secret", host="127.0.0.1", port=1)
RABBIT = LAB._replace(dialect="rabbitmq")


@pytest.fixture
def passcode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a passcode file; this user is not root."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    path = tmp_path / "passcode"
    path.write_text("secret\n")
    return str(path)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("", "--broker is missing"),
        ("--broker lab@127.0.0.1", "expected one like"),
        ("--broker stomp://lab:secret@127.0.0.1", "--passcode-file"),
        ("--broker stomp://lab@127.0.0.1 --label site", "expected NAME=VALUE"),
        ("--broker stomp://lab@127.0.0.1 --id other", "invited as lab"),
        ("--broker stomp://lab@127.0.0.1 --id lab.a/b", "expected a machine's name"),
        ("--broker rabbitmq://lab@127.0.0.1 --id all", "cannot be an address"),
    ],
)
def test_what_makes_no_sense_to_a_guest(
    options: str, why: str, passcode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["guest", "--passcode-file", passcode, *options.split()]) == ExitCode.USAGE
    assert why in capsys.readouterr().err


def test_not_as_root(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert main(["guest", "--broker", "stomp://lab@127.0.0.1"]) == ExitCode.USAGE
    assert "--allow-root" in capsys.readouterr().err


def test_nobody_is_there(passcode: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["guest", "--passcode-file", passcode, "--broker"]
    assert main([*given, "stomp://lab@127.0.0.1:1"]) == ExitCode.BUS
    assert "warning" not in capsys.readouterr().err
    assert main([*given, "stomp://lab@0.0.0.0:1"]) == ExitCode.BUS
    assert "anyone who listens on the network" in capsys.readouterr().err


def test_how_it_announces_itself() -> None:
    guest = guest_of_this_host(LAB, None, {"site": "cern", "cpus": "99"})
    assert (guest.id, guest.name, guest.host) == ("lab", "lab", platform.node())
    assert guest.labels["site"] == "cern"
    assert guest.labels["cpus"] == "99"
    assert int(guest.labels["memory"]) > 64
    assert guest.capabilities == {"run", "files"}
    assert guest_of_this_host(LAB, "lab.2", {}).id == "lab.2"
    assert guest_of_this_host(RABBIT, "other", {}).id == "other"
    assert guest.instance != guest_of_this_host(LAB, None, {}).instance


def test_its_host_s_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: "big.example.org")
    assert guest_of_this_host(RABBIT, None, {}).id == "big.example.org"
    monkeypatch.setattr(platform, "node", lambda: "")
    with pytest.raises(UsageError, match="expected a machine's name"):
        guest_of_this_host(RABBIT, None, {})


@pytest.mark.parametrize(
    "labels", [{"a": "b" * 256}, {"a": "b\n"}, {str(n): "" for n in range(64)}]
)
def test_labels_that_nobody_takes(labels: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"labels|words") as caught:
        guest_of_this_host(LAB, None, labels)
    assert "64 labels" in caught.value.hint


def test_its_load() -> None:
    load, begin = HostLoad(), resources.busy_seconds()
    held = bytearray(50 << 20)
    while resources.busy_seconds() < begin + 0.5:
        pass  # the system counts whole ticks, of which a moment may have too many
    report = load.report()
    assert report.state is VmState.RUNNING
    assert report.cpu is not None
    assert 0 <= report.cpu <= (os.cpu_count() or 1) * 1.5
    assert report.memory is not None
    assert len(held) < report.memory < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


async def test_one_of_that_name_at_a_time(tmp_path: Path) -> None:
    state = tmp_path / "guest/lab"
    with host_node._held(state, None) as work:
        assert work.parent == state
        assert [stat.S_IMODE(one.stat().st_mode) for one in (state.parent, state, work)] == [
            0o700
        ] * 3
        (state / "status-channels/1").touch()
        with pytest.raises(UsageError, match="a guest lab is already running here"):
            await asyncio.to_thread(host_node._held(state, None).__enter__)
    with host_node._held(state, tmp_path / "chosen") as work:
        assert work == tmp_path / "chosen"
        assert list((state / "status-channels").iterdir()) == []
    (tmp_path / "file").touch()
    for name in ("file", "file/x"):
        with (
            pytest.raises(HostError, match="cannot use its directory") as caught,
            host_node._held(state, tmp_path / name),
        ):
            pass
        assert "--directory" in caught.value.hint
