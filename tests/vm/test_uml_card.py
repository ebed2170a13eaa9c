"""What a hostile kernel can do with the socket that is its network card, and QEMU at its end."""

import asyncio
import os
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from boincvm.hypervisor.contract import EndCause, MachineEnd
from boincvm.hypervisor.uml import network as uml_network
from boincvm.hypervisor.uml.network import Network
from boincvm.job.model import PortForward

pytestmark = pytest.mark.timeout(120)
LIMIT = 60.0
GUEST = bytes.fromhex("525400123456")
ASK = (
    bytes.fromhex("ffffffffffff")
    + GUEST
    + bytes.fromhex("0806 0001 0800 06 04 0001")
    + GUEST
    + bytes((10, 0, 2, 15))
    + bytes(6)
    + bytes((10, 0, 2, 2))
)
"""ARP: who has the gateway's address?"""


def echo_request() -> bytes:
    addresses = bytes.fromhex("fec0" + "00" * 13 + "15" + "2001" + "00" * 13 + "01")
    icmp = bytes.fromhex("8000 0000 0001 0001")
    total = sum(struct.unpack(">20H", addresses + bytes((0, 8, 0, 58)) + icmp[4:]))
    total += 0x8000
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    icmp = icmp[:2] + struct.pack(">H", total ^ 0xFFFF) + icmp[4:]
    head = bytes.fromhex("52560a000202") + GUEST + bytes.fromhex("86dd 60000000 0008 3aff")
    return head + addresses + icmp


ECHO = echo_request()
"""An ICMPv6 echo request to an address outside, of which QEMU only writes that it cannot."""
COMPLAINT = "external icmpv6"


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    network = Network((), tmp_path)
    network.card.settimeout(LIMIT)
    yield network
    network.end()


def ask(network: Network) -> None:
    """Check that QEMU answers."""
    network.card.send(ASK)
    while True:
        frame = network.card.recv(1 << 16)
        if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\2":  # a reply
            assert frame[:6] == GUEST
            return


async def test_what_a_guest_has_qemu_write(network: Network) -> None:
    """It takes up little room, and QEMU does not wait until somebody has read it."""
    for _ in range(20):
        for _ in range(500):
            network.card.send(ECHO)
        ask(network)
    assert Path(f"/proc/{network.child.pid}/fd/2").stat().st_size < 1 << 16
    network.read_output()
    assert network.last_output() != ""
    network.card.send(ECHO)
    ask(network)
    assert COMPLAINT in network.last_output()


async def ended(network: Network) -> MachineEnd:
    network.read_output()
    async with asyncio.timeout(LIMIT):
        return network.machine_end(await network.child.wait())


async def test_a_port_that_was_taken_meanwhile(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        network = Network([PortForward(port, 80)], tmp_path)
        try:
            end = await ended(network)
        finally:
            network.end()
    assert end.cause is EndCause.FAILED
    assert f"the port {port} of 127.0.0.1 cannot be used" in end.detail


async def test_qemu_s_own_fault(network: Network) -> None:
    """Its warnings are not the cause."""
    ask(network)
    os.kill(network.child.pid, signal.SIGSEGV)
    end = await ended(network)
    assert end.cause is EndCause.FAILED
    assert end.detail == "the machine's network has ended: signal 11 ended QEMU"
    assert network.last_output() == ""


async def test_a_process_id_that_may_be_another_s(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(uml_network, "send", lambda *signal: sent.append(signal))
    network.child.end()
    network.card.close()
    network.connect(connected=False)
    network.connect(connected=True)
    assert sent == []
