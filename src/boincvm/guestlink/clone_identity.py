"""The identity that a machine gets before anything runs in it again, unlike any other copy's."""

import os
from typing import NamedTuple


class CloneIdentity(NamedTuple):
    """Values that no other machine has."""

    entropy: bytes
    """The seed of all random numbers that the guest's kernel makes from then on."""
    hardware_address: bytes
    """The network card's address, 6 bytes; empty without a card."""
    host_name: str = ""
    """Empty: keep the current one."""

    def headers(self) -> dict[str, str]:
        """Return the headers for the message `attach`."""
        headers = {"entropy": self.entropy.hex()}
        if self.hardware_address:
            headers["hardware-address"] = self.hardware_address.hex()
        if self.host_name:
            headers["host-name"] = self.host_name
        return headers


def clone_identity(*, network: bool, host_name: str = "") -> CloneIdentity:
    """Return a new identity."""
    # A locally administered unicast address (IEEE 802).
    address = bytes([0x52, *os.urandom(5)]) if network else b""
    return CloneIdentity(os.urandom(64), address, host_name)
