"""What a copy of a golden snapshot must not share with the others."""

import os
from typing import NamedTuple


class Fresh(NamedTuple):
    """entropy: bytes that nobody else has, from which the guest's kernel makes all its random
    numbers from then on. hardware_address: of the network card, 6 bytes, empty without one."""

    entropy: bytes
    hardware_address: bytes

    def headers(self) -> dict[str, str]:
        """For the word `attach`."""
        headers = {"entropy": self.entropy.hex()}
        if self.hardware_address:
            headers["hardware-address"] = self.hardware_address.hex()
        return headers


def fresh(*, network: bool) -> Fresh:
    """A new one."""
    # Locally administered, and of one card (IEEE 802).
    address = bytes([0x52, *os.urandom(5)]) if network else b""
    return Fresh(os.urandom(64), address)
