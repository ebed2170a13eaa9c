"""What a machine gets before anything runs in it again: nothing that another copy of it has too."""

import os
from typing import NamedTuple


class Fresh(NamedTuple):
    """entropy: bytes that nobody else has, from which the guest's kernel makes all its random
    numbers from then on. hardware_address: of the network card, 6 bytes, empty without one.
    host_name: the guest's, empty: as it is."""

    entropy: bytes
    hardware_address: bytes
    host_name: str = ""

    def headers(self) -> dict[str, str]:
        """For the word `attach`."""
        headers = {"entropy": self.entropy.hex()}
        if self.hardware_address:
            headers["hardware-address"] = self.hardware_address.hex()
        if self.host_name:
            headers["host-name"] = self.host_name
        return headers


def fresh(*, network: bool, host_name: str = "") -> Fresh:
    """A new one."""
    # Locally administered, and of one card (IEEE 802).
    address = bytes([0x52, *os.urandom(5)]) if network else b""
    return Fresh(os.urandom(64), address, host_name)
