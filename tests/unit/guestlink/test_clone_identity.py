"""What a copy of a golden snapshot has that other copies do not."""

import struct

import pytest

from boincvm.guestlink.clone_identity import CloneIdentity, clone_identity
from boincvm_agent import machine

MANY = 200
LOCAL, GROUP = 0x02, 0x01
RESEED, SET_ADDRESS = 0x5207, 0x8924  # random.h and sockios.h of Linux


def test_headers() -> None:
    both = CloneIdentity(b"\x00\xff" * 32, b"\x52\x00\x0a\xbc\xde\xff")
    assert both.headers() == {"entropy": "00ff" * 32, "hardware-address": "52000abcdeff"}


def test_headers_of_a_machine_without_a_network() -> None:
    assert CloneIdentity(b"\x01" * 64, b"").headers() == {"entropy": "01" * 64}


def test_headers_of_a_machine_with_a_name() -> None:
    made = clone_identity(network=False, host_name="fold-7")
    assert made.headers() == {"entropy": made.entropy.hex(), "host-name": "fold-7"}


@pytest.mark.parametrize("network", [False, True])
def test_there_is_enough_of_everything(network: bool) -> None:
    made = clone_identity(network=network)
    assert len(made.entropy) == 64
    assert len(made.hardware_address) == (6 if network else 0)
    assert ("hardware-address" in made.headers()) is network


def test_addresses_are_ours_to_give_and_of_one_card() -> None:
    for _ in range(MANY):
        first = clone_identity(network=True).hardware_address[0]
        assert first & LOCAL
        assert not first & GROUP


def test_no_two_are_equal() -> None:
    made = [clone_identity(network=True) for _ in range(MANY)]
    assert len({one.entropy for one in made}) == MANY
    assert len({one.hardware_address for one in made}) == MANY


def test_every_bit_of_the_entropy_differs_now_and_then() -> None:
    ones, zeros = 0, 0
    for _ in range(MANY):
        number = int.from_bytes(clone_identity(network=False).entropy)
        ones, zeros = ones | number, zeros | ~number
    assert ones == (1 << 512) - 1
    assert zeros & ones == ones


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bytes]]:
    """Record what the guest would ask its kernel for."""
    calls: list[tuple[int, bytes]] = []

    def record(descriptor: int, request: int, argument: bytes = b"") -> None:
        calls.append((request, argument))

    monkeypatch.setattr("fcntl.ioctl", record)
    return calls


def test_the_guest_takes_the_entropy_in(
    calls: list[tuple[int, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = clone_identity(network=True)
    numbers = machine.RandomNumbers()
    monkeypatch.setattr("posix.write", lambda _, data: calls.append((0, data)))
    numbers.renew(made.headers()["entropy"])
    assert calls == [(0, made.entropy), (RESEED, b"")]


def test_the_guest_takes_the_address(calls: list[tuple[int, bytes]]) -> None:
    made = clone_identity(network=True)
    machine.set_hardware_address(made.headers()["hardware-address"])
    ((request, argument),) = calls
    name, family, address = struct.unpack("=16sH6s16x", argument)  # struct ifreq
    assert request == SET_ADDRESS
    assert (name.rstrip(b"\0"), family, address) == (b"eth0", 1, made.hardware_address)
