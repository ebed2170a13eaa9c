"""Three machines by XML-RPC with the original names, as an old client uses them."""

import asyncio
import os
import xmlrpc.client
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from benchmarks.rabbitmq import LOGIN, PASSCODE

from boincvm.bus.broker_address import BrokerAddress
from boincvm.controller.controller import run_controller
from boincvm.controller.operations import call
from boincvm.controller.serve.auth import Policy
from boincvm.controller.serve.server import ListenAddress, Server
from support.bus.brokers import running_broker

pytestmark = pytest.mark.timeout(280)
TOKEN = "a-token-of-this-test"
NAMES = ("1.1.1", "1.2.1", "1.2.2")


@asynccontextmanager
async def served(directory: Path, broker: BrokerAddress | None) -> AsyncIterator[str]:
    """Return the address for an old client."""
    async with run_controller(directory, broker=broker) as controller:
        server = Server(controller, ListenAddress(), Policy(token=TOKEN, shared=directory.parent))
        host, port = await server.open()
        try:
            yield f"http://x:{TOKEN}@{host}:{port}/RPC2"
        finally:
            if controller.machines.all():
                await call(controller, "remove", {"vms": "all", "force": True})
            await server.close()


def old_client(address: str, work: Path) -> None:
    with xmlrpc.client.ServerProxy(address, allow_none=True) as proxy:
        vm: Any = proxy
        for name in NAMES:
            assert vm.createVM(name, "base") is True
        started = vm.start("1.**", False)
        assert started == dict.fromkeys(NAMES, True)
        assert sorted(vm.listRunningVMs()) == list(NAMES)
        assert sorted(vm.listRegisteredVMs()) == list(NAMES)
        assert vm.getState("1.1.1") == "Running"
        assert vm.ping("1.1.1", 10.0) == "PONG from 1.1.1"
        # Two of the three, by a pattern.
        command = vm.runCmd("1.2.*", "sh", ["-c", "echo $WORD; exit 4"], {"WORD": "hello"})
        both = finished(vm, command)
        assert sorted(both) == ["1.2.1", "1.2.2"]
        for result in both.values():
            assert (result["out"], result["exitCodeOrSignal"]) == ("hello\n", 4)
            assert len(result["resources"]) == 16
        assert command not in vm.listFinishedCmds()
        assert vm.getCmdResults(command) == both
        # Files both ways.
        (work / "there").write_bytes(os.urandom(300_000))
        assert vm.cpFileToVM("1.2.1", str(work / "there"), "file") is True
        assert vm.cpFileFromVM("1.2.1", "file", str(work / "back")) is True
        assert (work / "back").read_bytes() == (work / "there").read_bytes()
        # Snapshots.
        assert vm.takeSnapshot("1.2.1", "first", "with the file") is True
        assert vm.listSnapshots("1.2.1") == ["first"]
        finished(vm, vm.runCmd("1.2.1", "rm", "file"))
        assert finished(vm, vm.runCmd("1.2.1", "ls"))["out"] == ""
        assert vm.restoreSnapshot("1.2.1", "first") is True
        assert finished(vm, vm.runCmd("1.2.1", "ls"))["out"] == "file\n"
        assert vm.pause("1.1.1") is True
        assert vm.getState("1.1.1") == "Paused"
        assert vm.unpause("1.1.1") is True
        assert vm.shutdown("all") == dict.fromkeys(NAMES, True)
        assert vm.listVMsWithState() == dict.fromkeys(NAMES, "PoweredOff")
        with pytest.raises(xmlrpc.client.Fault, match="there is no machine"):
            vm.getState("nobody")


def finished(vm: Any, command: str) -> Any:
    """Poll until it has ended: XML-RPC has no way to wait."""
    while True:
        result = vm.getCmdResults(command)
        results = [result] if "finished" in result else list(result.values())
        if all(one["finished"] for one in results):
            return result


async def test_an_old_client_with_the_embedded_broker(base_image: Path, tmp_path: Path) -> None:
    async with served(tmp_path / "controller", None) as address:
        await asyncio.to_thread(old_client, address, tmp_path)


@pytest.mark.parametrize("kind", ["rabbitmq", "activemq"])
async def test_an_old_client_with(base_image: Path, tmp_path: Path, kind: str) -> None:
    with running_broker(kind, tmp_path) as broker:
        port = broker.address.port
        location = BrokerAddress(LOGIN, PASSCODE, host="127.0.0.1", port=port, dialect=kind)
        async with served(tmp_path / "controller", location) as address:
            await asyncio.to_thread(old_client, address, tmp_path)
