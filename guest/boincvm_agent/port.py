"""The port to the host: a virtio-serial port, or two serial lines.

A serial line that gets more bytes than its driver can buffer loses some, or stops for good. So the
second line carries receipts for the bytes that we have read, and the host sends at most a few
thousand bytes beyond the last receipt (src/boincvm/hypervisor/serial_line.py).
"""

from __future__ import annotations

import posix as os  # see __init__.py

NAME = b"boincvm.agent"
_PORTS = "/sys/class/virtio-ports"
_KERNEL_EVENTS = 15  # NETLINK_KOBJECT_UEVENT of linux/netlink.h
_DATA, _RECEIPTS = "/dev/ttyS0", "/dev/ttyS1"
_RECEIPT_BYTES = 2  # little-endian; a terminal gives no more than 4095 bytes at once


class Port:
    """A port; `descriptor` is non-blocking, and used for reading and writing."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def read(self, size: int) -> bytes:
        """Read what has arrived, at most `size` bytes. Raises OSError."""
        return os.read(self.descriptor, size)


class SerialPort(Port):
    """A port of two serial lines; `receipts` is the descriptor of the second one."""

    def __init__(self, descriptor: int, receipts: int) -> None:
        Port.__init__(self, descriptor)
        self._receipts = receipts

    def read(self, size: int) -> bytes:
        data = os.read(self.descriptor, size)
        os.write(self._receipts, len(data).to_bytes(_RECEIPT_BYTES, "little"))
        return data


def open_port() -> Port:
    """Open the virtio-serial port, after waiting for the kernel to announce it."""
    device = _find() or _wait()
    return Port(os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))


def open_serial_port() -> SerialPort:
    """Open the two serial lines and make them transparent for all bytes."""
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
    """Return the port's name; empty if the port was announced but has no name yet."""
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
