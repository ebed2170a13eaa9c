"""The virtio-serial port that leads to the host."""

from __future__ import annotations

import _socket  # `socket` itself would bring in enum and selectors
import os

NAME = "boincvm.agent"
_PORTS = "/sys/class/virtio-ports"
_KERNEL_EVENTS = 15  # NETLINK_KOBJECT_UEVENT of linux/netlink.h


def open_port() -> int:
    """The port's descriptor, non-blocking; waits for the kernel to announce the port."""
    events = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_DGRAM, _KERNEL_EVENTS)
    try:
        events.bind((0, 1))
        while True:
            device = _find()
            if device is not None:
                return os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            events.recv(8192)
    finally:
        events.close()


def _find() -> str | None:
    try:
        ports = os.listdir(_PORTS)
    except FileNotFoundError:
        return None
    for port in ports:
        try:
            with open(f"{_PORTS}/{port}/name", "rb") as file:
                name = file.read()
        except OSError:
            continue  # the port was announced, and its name is not there yet
        if name.strip() == NAME.encode() and os.path.exists(f"/dev/{port}"):
            return f"/dev/{port}"
    return None
