"""Advice for a program that the system cannot execute, by errno of execve(2)."""

import errno
from collections.abc import Sequence

LONGEST_ARGUMENT = (128 << 10) - 1
"""Maximum bytes of one argument or one NAME=VALUE (Linux's MAX_ARG_STRLEN less the final NUL)."""

_ELIBBAD = 80  # only Linux has it
_ADVICE = {
    errno.EACCES: "it must be an executable file: chmod +x {name}",
    errno.EAGAIN: "too many processes run already: wait for some to end",
    errno.EINVAL: "the file is damaged: it names more than one ELF interpreter",
    errno.EIO: "reading the file failed: check the disk",
    errno.EISDIR: "the interpreter that the file names is a directory",
    _ELIBBAD: "the ELF interpreter that the file names is damaged or not an ELF file",
    errno.ELOOP: "its symbolic links, or its #! lines, refer to each other in a circle",
    errno.EMFILE: "too many files are open: run fewer programs at the same time",
    errno.ENAMETOOLONG: "a path has at most 4095 bytes, and a name in it 255",
    errno.ENFILE: "too many files are open: run fewer programs at the same time",
    errno.ENOENT: "the #! line, or the ELF interpreter, must name an existing program",
    errno.ENOEXEC: "it must be a program for Linux on this processor, or begin with a #! line",
    errno.ENOMEM: "there is too little memory: give it more, or run less at the same time",
    errno.ENOTDIR: "something on its path is a file, not a directory",
    errno.EPERM: "its set-user-ID bit, or a security module, forbids it to this user",
    errno.ETXTBSY: "somebody has the file open for writing: close it first",
}


_COMPILER = ("libc6-dev",)
_PACKAGES = {
    "R": ("r-base-core",),
    "Rscript": ("r-base-core",),
    "c++": ("g++", *_COMPILER),
    "cc": ("gcc", *_COMPILER),
    "ecm": ("gmp-ecm",),
    "g++": ("g++", *_COMPILER),
    "gcc": ("gcc", *_COMPILER),
    "gfortran": ("gfortran", *_COMPILER),
    "gmx": ("gromacs",),
    "gp": ("pari-gp",),
    "ip": ("iproute2",),
    "java": ("default-jre-headless",),
    "javac": ("default-jdk-headless",),
    "killall": ("psmisc",),
    "latex": ("texlive-latex-base",),
    "lmp": ("lammps",),
    "mpicc": ("libopenmpi-dev",),
    "mpirun": ("openmpi-bin",),
    "node": ("nodejs",),
    "ping": ("iputils-ping",),
    "pip": ("python3-pip",),
    "pip3": ("python3-pip",),
    "ps": ("procps",),
    "python": ("python-is-python3",),
    "ssh": ("openssh-client",),
    "top": ("procps",),
    "vi": ("vim-tiny",),
}
"""Debian's packages of programs that have another name, or need more than their own."""


def packages_of(program: str) -> tuple[str, ...]:
    """Return the packages that are known to bring a program; empty if none is."""
    return _PACKAGES.get(program, ())


def advice_for(number: int, name: str, arguments: Sequence[bytes] = ()) -> str:
    """Return one line on what to do, or "" if there is no advice.

    `arguments`: the arguments and the environment.
    """
    if number == errno.E2BIG:
        return _too_long(arguments)
    return _ADVICE.get(number, "").replace("{name}", name)


def _too_long(arguments: Sequence[bytes]) -> str:
    longest = max(map(len, arguments), default=0)
    if longest > LONGEST_ARGUMENT:
        which = f"one has {longest} bytes, and Linux accepts {LONGEST_ARGUMENT} in one"
    else:
        total = sum(map(len, arguments)) + 9 * len(arguments)  # each has a NUL and a pointer
        which = f"all have {total} bytes, and Linux accepts a quarter of the stack's limit (8 MiB)"
    return f"arguments or environment are too long: {which}; pass them in a file"
