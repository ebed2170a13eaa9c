"""The virtio-serial port that leads to the host."""

from __future__ import annotations

import posix as os  # see __init__.py

NAME = b"boincvm.agent"
_PORTS = "/sys/class/virtio-ports"
_KERNEL_EVENTS = 15  # NETLINK_KOBJECT_UEVENT of linux/netlink.h


def open_port() -> int:
    """The port's descriptor, non-blocking; waits for the kernel to announce the port."""
    device = _find() or _wait()
    return os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def _wait() -> str:
    import _socket  # rarely needed; and `socket` itself would bring in enum and selectors

    events = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_DGRAM, _KERNEL_EVENTS)
    try:
        events.bind((0, 1))
        while (device := _find()) is None:
            events.recv(8192)
        return device
    finally:
        events.close()


def _find() -> str | None:
    try:
        ports = os.listdir(_PORTS)
    except FileNotFoundError:
        return None
    for port in ports:
        device = f"/dev/{port}"
        if _name_of(port) == NAME and os.access(device, os.F_OK):
            return device
    return None


def _name_of(port: str) -> bytes:
    """Empty while it is not there yet, though the port was announced."""
    try:
        file = os.open(f"{_PORTS}/{port}/name", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(file, 256).strip()
    except OSError:
        return b""
    finally:
        os.close(file)
