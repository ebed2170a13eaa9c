"""What the first process of a Linux system has to do, and what it can tell of the machine."""

from __future__ import annotations

import _signal
import fcntl
import os
import time

WORK = b"/work"
_CGROUPS = "/sys/fs/cgroup"
_ROOT_DISK = "/dev/vda"
_PAGE_KIB = 4
_RNDADDENTROPY, _RNDRESEEDCRNG = 0x40085203, 0x5207  # linux/random.h
_SIOCSIFHWADDR = 0x8924  # linux/sockios.h
_ARPHRD_ETHER = 1  # linux/if_arp.h
_CARD = b"eth0"
_EXT4_IOC_RESIZE_FS = 0x40086610  # _IOW('f', 16, __u64), fs/ext4/ext4.h


def set_clock(nanoseconds: str) -> None:
    """Sets the clock to the host's: nanoseconds since 1970."""
    time.clock_settime_ns(time.CLOCK_REALTIME, int(nanoseconds))


def renew_random_numbers(entropy: str) -> None:
    """The kernel's random numbers depend on these hexadecimal digits from now on, also those
    that it has in store: copies of one machine would all have the same ones.

    What is random in this process itself (its layout, its hashes) stays as it was; it keeps no
    secret by it. The kernel's boot_id is made when it is first read, which we never do.
    """
    data = bytes.fromhex(entropy)
    head = (len(data) * 8).to_bytes(4, "little") + len(data).to_bytes(4, "little")
    random = os.open("/dev/random", os.O_WRONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(random, _RNDADDENTROPY, head + data)
        fcntl.ioctl(random, _RNDRESEEDCRNG)
    finally:
        os.close(random)


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
    size = os.lseek(disk, 0, os.SEEK_END)
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
    _write("/proc/sysrq-trigger", b"b")
    _signal.pause()


def out_of_memory_kills() -> int:
    """How many processes the kernel has killed for want of memory, since boot."""
    with open("/proc/vmstat", "rb") as file:
        text = file.read()
    _, _, rest = text.partition(b"\noom_kill ")
    return int(rest.partition(b"\n")[0] or 0)


def disk_free() -> int:
    """Bytes that are free on the guest's disk."""
    status = os.statvfs(WORK)
    return status.f_bavail * status.f_frsize


class ControlGroup:
    """All processes of one program, children that forked away included."""

    def __init__(self, name: str) -> None:
        self._path = f"{_CGROUPS}/{name}"
        os.mkdir(self._path)

    def enter(self) -> None:
        """Puts the calling process in."""
        _write(f"{self._path}/cgroup.procs", b"0")

    @staticmethod
    def leave() -> None:
        """Puts the calling process back where it was."""
        _write(f"{_CGROUPS}/cgroup.procs", b"0")

    def kill(self) -> None:
        """Kills all of them, at once."""
        _write(f"{self._path}/cgroup.kill", b"1")

    def cpu_time(self) -> tuple[int, int]:
        """User and system time of all of them, dead ones too, in microseconds."""
        user = system = 0
        with open(f"{self._path}/cpu.stat", "rb") as file:
            for line in file:
                name, value = line.split()
                if name == b"user_usec":
                    user = int(value)
                elif name == b"system_usec":
                    system = int(value)
        return user, system

    def resident(self) -> int:
        """KiB of memory that all of them have now; what they share counts for each."""
        pages = 0
        with open(f"{self._path}/cgroup.procs", "rb") as file:
            processes = file.read().split()
        for process in processes:
            try:
                with open(b"/proc/%b/statm" % process, "rb") as file:
                    pages += int(file.read().split()[1])
            except (FileNotFoundError, ProcessLookupError):
                pass  # it has just ended
        return pages * _PAGE_KIB

    def remove(self) -> bool:
        """Takes the empty group away; False while the dead are still being buried."""
        try:
            os.rmdir(self._path)
        except OSError:
            return False
        return True


def _write(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
