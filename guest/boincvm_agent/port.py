"""The port that leads to the host: virtio-serial, or two serial lines.

A serial line that gets more than its driver has room for loses bytes, or stops for good. So there
the host sends no more than a few thousand bytes ahead of what we have told it on the second line
that we have read (src/boincvm/hypervisor/serial_line.py).
"""

from __future__ import annotations

import posix as os  # see __init__.py

NAME = b"boincvm.agent"
_PORTS = "/sys/class/virtio-ports"
_KERNEL_EVENTS = 15  # NETLINK_KOBJECT_UEVENT of linux/netlink.h
_DATA, _RECEIPTS = "/dev/ttyS0", "/dev/ttyS1"
_RECEIPT_BYTES = 2  # little-endian; a terminal gives no more than 4095 bytes at once


class Port:
    """descriptor: non-blocking, for all that is read and written."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def read(self, size: int) -> bytes:
        """What has arrived, `size` bytes at most. Raises OSError."""
        return os.read(self.descriptor, size)


class SerialPort(Port):
    """receipts: a descriptor, for the host to be told what has been read."""

    def __init__(self, descriptor: int, receipts: int) -> None:
        Port.__init__(self, descriptor)
        self._receipts = receipts

    def read(self, size: int) -> bytes:
        data = os.read(self.descriptor, size)
        os.write(self._receipts, len(data).to_bytes(_RECEIPT_BYTES, "little"))
        return data


def open_port() -> Port:
    """The virtio-serial port; waits for the kernel to announce it."""
    device = _find() or _wait()
    return Port(os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))


def open_serial_port() -> SerialPort:
    """The two serial lines, which carry bytes as they are from now on."""
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    data, receipts = os.open(_DATA, flags | os.O_NONBLOCK), os.open(_RECEIPTS, flags)
    for line in (data, receipts):
        _make_raw(line)
    return SerialPort(data, receipts)


def _make_raw(line: int) -> None:
    import termios  # for this port alone

    attributes = termios.tcgetattr(line)
    attributes[0] = attributes[1] = attributes[3] = 0  # nothing is changed, echoed or acted on
    attributes[4] = attributes[5] = termios.B115200  # the fastest that a real line's chip has
    termios.tcsetattr(line, termios.TCSANOW, attributes)


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
