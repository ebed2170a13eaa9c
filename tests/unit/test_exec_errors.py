"""Advice on programs that cannot be executed."""

import errno

import pytest

from boincvm.exec_errors import LONGEST_ARGUMENT, advice_for, packages_of

KNOWN = (
    "E2BIG", "EACCES", "EAGAIN", "EINVAL", "EIO", "EISDIR", "ELIBBAD", "ELOOP", "EMFILE",
    "ENAMETOOLONG", "ENFILE", "ENOENT", "ENOEXEC", "ENOMEM", "ENOTDIR", "EPERM", "ETXTBSY",
)  # fmt: skip
"""All of execve(2) but EFAULT, which would be our own fault."""


@pytest.mark.parametrize("name", KNOWN)
def test_there_is_advice_for_all_that_may_be(name: str) -> None:
    text = advice_for(getattr(errno, name), "prog", [b"prog"])
    assert text
    assert "\n" not in text


def test_there_is_none_for_what_cannot_be() -> None:
    assert advice_for(errno.EFAULT, "prog") == ""


def test_a_name_is_no_format() -> None:
    assert advice_for(errno.EACCES, "{0}{name}").endswith("chmod +x {0}{name}")


def test_which_of_the_two_limits_it_is() -> None:
    one = advice_for(errno.E2BIG, "prog", [b"prog", b"x" * (LONGEST_ARGUMENT + 1)])
    assert (
        f"one has {LONGEST_ARGUMENT + 1} bytes, and Linux accepts {LONGEST_ARGUMENT} in one" in one
    )
    many = advice_for(errno.E2BIG, "prog", [b"x" * LONGEST_ARGUMENT] * 20)
    assert f"all have {20 * (LONGEST_ARGUMENT + 9)} bytes" in many


def test_packages_of_programs_with_another_name() -> None:
    assert packages_of("gcc") == ("gcc", "libc6-dev")
    assert packages_of("ecm") == ("gmp-ecm",)
    assert packages_of("no-such-program") == packages_of("/usr/bin/gcc") == ()
