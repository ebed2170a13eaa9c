"""The duties of a Linux system's first process: clock, names, random numbers, root disk."""

from __future__ import annotations

import _signal
import fcntl
import posix as os  # see __init__.py
import select
import time

WORK = b"/work"
SEEK_END = 2  # stdio.h
_SECTOR = 512  # the unit in which the kernel gives a disk's size
_LOCKS = "/run/lock"
_MACHINE_ID = "/etc/machine-id"
_MACHINE_ID_SIZE = 33  # 32 digits and a line end
_RNDRESEEDCRNG = 0x5207  # linux/random.h
_SIOCSIFHWADDR = 0x8924  # linux/sockios.h
_ARPHRD_ETHER = 1  # linux/if_arp.h
_CARD = b"eth0"
_HOSTS = "/etc/hosts"
_OWN_ADDRESS = b"127.0.1.1\t"  # as Debian has it
_FIFREEZE = 0xC0045877  # linux/fs.h
_EXT4_IOC_RESIZE_FS = 0x40086610  # _IOW('f', 16, __u64), fs/ext4/ext4.h


def set_clock(nanoseconds: str) -> None:
    """Set the clock to the host's time in nanoseconds since 1970."""
    time.clock_settime_ns(time.CLOCK_REALTIME, int(nanoseconds))


class RandomNumbers:
    """Access to the kernel's random number generator.

    Opening the device costs more instructions than using it, so it is opened in advance. Raises
    OSError.
    """

    def __init__(self) -> None:
        self._device = os.open("/dev/random", os.O_WRONLY | os.O_CLOEXEC)

    def renew(self, entropy: str) -> None:
        """Add these hexadecimal digits to the entropy pool and reseed the generator from it.

        Otherwise all copies of a machine would get the same numbers. Numbers that programs got
        before remain the same in all copies: docs/checkpoints.md.
        """
        os.write(self._device, bytes.fromhex(entropy))
        fcntl.ioctl(self._device, _RNDRESEEDCRNG)


def set_host_name(name: str) -> None:
    """Set the machine's host name in the kernel, /etc/hostname and /etc/hosts."""
    _write("/proc/sys/kernel/hostname", name.encode())
    try:
        _write("/etc/hostname", name.encode() + b"\n")
        with open(_HOSTS, "rb") as file:
            lines = [line for line in file if not line.startswith(_OWN_ADDRESS)]
        _write(_HOSTS, b"".join(lines) + _OWN_ADDRESS + name.encode() + b"\n")
    except OSError:
        pass  # the disk is full, or has been remounted read-only


def _write(path: str, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(file, data)
    finally:
        os.close(file)


def put_first(*, first: bool) -> None:
    """Give this process priority over all others (`first`), or the usual priority."""
    policy = os.SCHED_FIFO if first else os.SCHED_OTHER
    os.sched_setscheduler(0, policy, os.sched_param(1 if first else 0))


def try_timer() -> None:
    """Let the kernel find out how soon it can have the timer's next interrupt.

    An emulated HPET misses interrupts that are due very soon. The kernel then logs that it waits
    longer from now on, which each copy of the machine would do again. A time limit of 1 µs needs
    such an interrupt if the process has the highest priority: others get slack.
    """
    put_first(first=True)
    select.select([], [], [], 1e-6)
    put_first(first=False)


def set_hardware_address(address: str) -> None:
    """Set the network card's hardware address, given in hexadecimal digits."""
    import _socket  # rarely needed

    request = _CARD.ljust(16, b"\0") + _ARPHRD_ETHER.to_bytes(2, "little") + bytes.fromhex(address)
    with_padding = request.ljust(40, b"\0")
    card = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    try:
        fcntl.ioctl(card.fileno(), _SIOCSIFHWADDR, with_padding)
    finally:
        card.close()


def set_up() -> None:
    """Do what an init system does at boot: directories in /run, machine id, size of the root."""
    os.mkdir(_LOCKS)
    os.chmod(_LOCKS, 0o1777)
    renew_machine_id()
    grow_root()


def renew_machine_id() -> None:
    """Write a new /etc/machine-id (machine-id(5)), at each boot and in each copy of a machine."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    file = os.open(_MACHINE_ID, flags, 0o444)
    # Not O_TRUNC: when such a file is closed ext4 writes it to the disk, which costs each copy of
    # a machine 3,000 blocks of code to translate (docs/checkpoints.md).
    size = os.write(file, _new_machine_id())
    if os.lseek(file, 0, SEEK_END) > size:
        os.ftruncate(file, size)
    os.close(file)


def _new_machine_id() -> bytes:
    number = bytearray(os.urandom(16))
    number[6] = number[6] & 0x0F | 0x40  # a random UUID, as systemd makes it (RFC 9562, 5.4)
    number[8] = number[8] & 0x3F | 0x80
    return number.hex().encode() + b"\n"


class MachineId:
    """The file /etc/machine-id, mapped into memory, for a copy of this machine to renew.

    Writing to a file takes the kernel 2,000 blocks of code, which each copy would have to translate
    (docs/checkpoints.md). A program could shorten the file, and writing to the mapping would then
    end this process; so the mapping is for a machine without programs. Raises OSError, ValueError.
    """

    def __init__(self) -> None:
        import mmap  # only for machines that are saved

        file = os.open(_MACHINE_ID, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            self._memory = mmap.mmap(file, _MACHINE_ID_SIZE)
        finally:
            os.close(file)
        self._memory[0] = self._memory[0]  # the first write to a page is slow

    def renew(self) -> None:
        """Write a new machine id."""
        self._memory[:] = _new_machine_id()


def grow_root() -> None:
    """Grow the root file system to the size of its disk, if that is larger than the image's."""
    device = os.stat("/").st_dev
    with open(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/size", "rb") as file:
        size = int(file.read()) * _SECTOR
    status = os.statvfs("/")
    # statvfs does not count ext4's own metadata, so a slightly larger disk needs no growth.
    if size > status.f_blocks * status.f_frsize * 1.1:
        root = os.open("/", os.O_RDONLY | os.O_CLOEXEC)
        blocks = (size // status.f_frsize).to_bytes(8, "little")
        fcntl.ioctl(root, _EXT4_IOC_RESIZE_FS, blocks)
        os.close(root)


def power_off() -> None:
    """Write all buffers to the disk and end the machine; does not return."""
    # The hypervisor ends the machine at a reset; `b` resets without the help of any program.
    trigger = os.open("/proc/sysrq-trigger", os.O_WRONLY | os.O_CLOEXEC)
    root = os.open("/", os.O_RDONLY | os.O_CLOEXEC)
    os.sync()
    try:
        # Nothing is written after that, and its journal need not be replayed, as if unmounted.
        fcntl.ioctl(root, _FIFREEZE, 0)
    except OSError:
        pass  # another file system, or a disk with errors
    os.write(trigger, b"b")
    _signal.pause()


def disk_free() -> int:
    """Return the number of free bytes on the guest's disk."""
    status = os.statvfs(WORK)
    return status.f_bavail * status.f_frsize
