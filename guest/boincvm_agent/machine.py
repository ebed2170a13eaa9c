"""What the first process of a Linux system has to do, and what it can tell of the machine."""

from __future__ import annotations

import _signal
import fcntl
import posix as os  # see __init__.py
import time

WORK = b"/work"
SEEK_END = 2  # stdio.h
_ROOT_DISK = "/dev/vda"
_RNDRESEEDCRNG = 0x5207  # linux/random.h
_SIOCSIFHWADDR = 0x8924  # linux/sockios.h
_ARPHRD_ETHER = 1  # linux/if_arp.h
_CARD = b"eth0"
_EXT4_IOC_RESIZE_FS = 0x40086610  # _IOW('f', 16, __u64), fs/ext4/ext4.h


def set_clock(nanoseconds: str) -> None:
    """Sets the clock to the host's: nanoseconds since 1970."""
    time.clock_settime_ns(time.CLOCK_REALTIME, int(nanoseconds))


class RandomNumbers:
    """The kernel's random numbers. Made while time is free: to open a device costs more
    instructions than to use it. Raises OSError."""

    def __init__(self) -> None:
        self._device = os.open("/dev/random", os.O_WRONLY | os.O_CLOEXEC)

    def renew(self, entropy: str) -> None:
        """They depend on these hexadecimal digits from now on, also those that the kernel has in
        store: copies of one machine would all have the same ones.

        What was random before stays as it was, alike in all copies: where the kernel and this
        process lie in memory, and how they hash. What a program starts with (its layout, its
        hashes) is new. boot_id is made when it is first read, which we never do, and the
        image's /etc/machine-id is empty.
        """
        os.write(self._device, bytes.fromhex(entropy))
        fcntl.ioctl(self._device, _RNDRESEEDCRNG)


def set_hardware_address(address: str) -> None:
    """Of the network card: hexadecimal digits."""
    import _socket  # rarely needed

    request = _CARD.ljust(16, b"\0") + _ARPHRD_ETHER.to_bytes(2, "little") + bytes.fromhex(address)
    with_padding = request.ljust(40, b"\0")
    card = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    try:
        fcntl.ioctl(card.fileno(), _SIOCSIFHWADDR, with_padding)
    finally:
        card.close()


def grow_root() -> None:
    """Makes the file system as large as its disk, if that is larger than the image's was."""
    disk = os.open(_ROOT_DISK, os.O_RDONLY | os.O_CLOEXEC)
    size = os.lseek(disk, 0, SEEK_END)
    os.close(disk)
    status = os.statvfs("/")
    # What ext4 keeps for itself does not count in statvfs, so a little more is no growth.
    if size > status.f_blocks * status.f_frsize * 1.1:
        root = os.open("/", os.O_RDONLY | os.O_CLOEXEC)
        blocks = (size // status.f_frsize).to_bytes(8, "little")
        fcntl.ioctl(root, _EXT4_IOC_RESIZE_FS, blocks)
        os.close(root)


def power_off() -> None:
    """Writes the disk's buffers out and ends the machine; does not return."""
    os.sync()
    # The machine is run so that a reset ends it; `b` needs no help of any program.
    trigger = os.open("/proc/sysrq-trigger", os.O_WRONLY | os.O_CLOEXEC)
    os.write(trigger, b"b")
    _signal.pause()


def disk_free() -> int:
    """Bytes that are free on the guest's disk."""
    status = os.statvfs(WORK)
    return status.f_bavail * status.f_frsize
