"""What a machine gets before anything runs in it again: nothing that another copy of it has too."""

import os
from typing import NamedTuple


class CloneIdentity(NamedTuple):
    """What no other machine has."""

    entropy: bytes
    """From which the guest's kernel makes all its random numbers from then on."""
    hardware_address: bytes
    """Of the network card, 6 bytes; empty without one."""
    host_name: str = ""
    """Empty: as it is."""

    def headers(self) -> dict[str, str]:
        """Return the headers for the word `attach`."""
        headers = {"entropy": self.entropy.hex()}
        if self.hardware_address:
            headers["hardware-address"] = self.hardware_address.hex()
        if self.host_name:
            headers["host-name"] = self.host_name
        return headers


def clone_identity(*, network: bool, host_name: str = "") -> CloneIdentity:
    """Return a new one."""
    # Locally administered, and of one card (IEEE 802).
    address = bytes([0x52, *os.urandom(5)]) if network else b""
    return CloneIdentity(os.urandom(64), address, host_name)
