"""The filter of a User-mode Linux's system calls: what its kernel needs of the host's, and no more.

The filter is a program for the host's kernel (seccomp(2)), which bubblewrap loads before it starts
ours. It holds for the kernel and for all of the guest's programs; these make no system call of the
host's anyway: each is caught by the kernel, whose own filter prevails over an error of this one.
Everything else fails as if it were not permitted, which harms nobody who does not insist.
"""

import struct

# <linux/bpf_common.h>, <linux/seccomp.h>, <linux/audit.h>
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
"""Offsets in struct seccomp_data; of the argument, the lower half."""
_X86_64 = 0xC000003E
_EPERM, _ENOSYS = 1, 38
_UNIX = 1
"""AF_UNIX: within the namespaces there is nobody else to reach by it."""
_NEW_NAMESPACES = 0x7E020000
"""All flags of clone(2) that make a namespace; CLONE_NEWTIME is none of clone's."""

_CALLS = {
    "read": 0,
    "write": 1,
    "open": 2,
    "close": 3,
    "stat": 4,
    "fstat": 5,
    "lstat": 6,
    "poll": 7,
    "lseek": 8,
    "mmap": 9,
    "mprotect": 10,
    "munmap": 11,
    "brk": 12,
    "rt_sigaction": 13,
    "rt_sigprocmask": 14,
    "rt_sigreturn": 15,
    "ioctl": 16,
    "pread64": 17,
    "pwrite64": 18,
    "readv": 19,
    "writev": 20,
    "access": 21,
    "sched_yield": 24,
    "mremap": 25,
    "mincore": 27,
    "madvise": 28,
    "dup": 32,
    "dup2": 33,
    "nanosleep": 35,
    "getpid": 39,
    "socket": 41,
    "sendto": 44,
    "recvfrom": 45,
    "sendmsg": 46,
    "recvmsg": 47,
    "shutdown": 48,
    "socketpair": 53,
    "setsockopt": 54,
    "getsockopt": 55,
    "clone": 56,
    "fork": 57,
    "vfork": 58,
    "execve": 59,
    "exit": 60,
    "wait4": 61,
    "kill": 62,
    "uname": 63,
    "fcntl": 72,
    "fsync": 74,
    "fdatasync": 75,
    "truncate": 76,
    "ftruncate": 77,
    "getcwd": 79,
    "mkdir": 83,
    "rmdir": 84,
    "unlink": 87,
    "readlink": 89,
    "gettimeofday": 96,
    "getrlimit": 97,
    "getrusage": 98,
    "sysinfo": 99,
    "ptrace": 101,
    "getuid": 102,
    "getgid": 104,
    "geteuid": 107,
    "getegid": 108,
    "setpgid": 109,
    "getppid": 110,
    "getpgrp": 111,
    "setsid": 112,
    "getpgid": 121,
    "rt_sigpending": 127,
    "rt_sigtimedwait": 128,
    "rt_sigsuspend": 130,
    "sigaltstack": 131,
    "personality": 135,
    "statfs": 137,
    "fstatfs": 138,
    "prctl": 157,
    "arch_prctl": 158,
    "gettid": 186,
    "tkill": 200,
    "time": 201,
    "futex": 202,
    "sched_setaffinity": 203,
    "sched_getaffinity": 204,
    "get_thread_area": 211,
    "epoll_create": 213,
    "getdents64": 217,
    "set_tid_address": 218,
    "restart_syscall": 219,
    "timer_create": 222,
    "timer_settime": 223,
    "timer_gettime": 224,
    "timer_getoverrun": 225,
    "timer_delete": 226,
    "clock_gettime": 228,
    "clock_getres": 229,
    "clock_nanosleep": 230,
    "exit_group": 231,
    "epoll_wait": 232,
    "epoll_ctl": 233,
    "tgkill": 234,
    "waitid": 247,
    "openat": 257,
    "newfstatat": 262,
    "unlinkat": 263,
    "readlinkat": 267,
    "faccessat": 269,
    "ppoll": 271,
    "set_robust_list": 273,
    "sync_file_range": 277,
    "epoll_pwait": 281,
    "timerfd_create": 283,
    "fallocate": 285,
    "timerfd_settime": 286,
    "accept4": 288,
    "signalfd4": 289,
    "eventfd2": 290,
    "epoll_create1": 291,
    "dup3": 292,
    "pipe2": 293,
    "preadv": 295,
    "pwritev": 296,
    "recvmmsg": 299,
    "prlimit64": 302,
    "sendmmsg": 307,
    "seccomp": 317,
    "getrandom": 318,
    "memfd_create": 319,
    "execveat": 322,
    "membarrier": 324,
    "rseq": 334,
    "close_range": 436,
    "faccessat2": 439,
}
"""The system calls, and their numbers on x86-64."""
_CLONE3 = 435


_Line = tuple[int, int, int, int]
"""A struct sock_filter: code, lines to skip if true, lines to skip if false, value."""

_ALLOWED: tuple[_Line, ...] = ((_RETURN, 0, 0, _ALLOW),)
_REFUSED: tuple[_Line, ...] = ((_RETURN, 0, 0, _ERROR | _EPERM),)
_UNKNOWN: tuple[_Line, ...] = ((_RETURN, 0, 0, _ERROR | _ENOSYS),)
_ACTIONS: dict[int, tuple[_Line, ...]] = {
    **dict.fromkeys(_CALLS.values(), _ALLOWED),
    _CALLS["clone"]: (
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_ANY_BIT, 1, 0, _NEW_NAMESPACES),
        *_ALLOWED,
        *_REFUSED,
    ),
    _CALLS["socket"]: (
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_EQUAL, 0, 1, _UNIX),
        *_ALLOWED,
        *_REFUSED,
    ),
    # Its flags lie in memory, where no filter can look; the C library then takes clone.
    _CLONE3: _UNKNOWN,
}
"""What becomes of each system call that is not just refused."""


def filter_program() -> bytes:
    """Return the filter, an array of struct sock_filter."""
    head: list[_Line] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, _X86_64),
        *_UNKNOWN,
        (_LOAD, 0, 0, _NUMBER),
    ]
    return b"".join(struct.pack("=HBBI", *line) for line in (*head, *_search(_ranges())))


def _ranges() -> list[tuple[int, tuple[_Line, ...]]]:
    """Return all numbers as ranges, each with its first number and what becomes of its calls."""
    ranges: list[tuple[int, tuple[_Line, ...]]] = []
    for number in range(max(_ACTIONS) + 2):
        action = _ACTIONS.get(number, _REFUSED)
        if not ranges or ranges[-1][1] != action:
            ranges.append((number, action))
    return ranges


def _search(ranges: list[tuple[int, tuple[_Line, ...]]]) -> list[_Line]:
    """Return the lines that find a number's range by bisection.

    Each switch between a guest's program and the kernel is several system calls of a process whose
    own filter, the kernel's, looks at addresses. So the host's kernel cannot remember an answer,
    and runs both filters each time.
    """
    if len(ranges) == 1:
        return list(ranges[0][1])
    middle = len(ranges) // 2
    below, above = _search(ranges[:middle]), _search(ranges[middle:])
    return [(_AT_LEAST, len(below), 0, ranges[middle][0]), *below, *above]
