"""Accounts of a broker: who may log in, and which destinations each may use."""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from typing import NamedTuple

from boincvm.bus.topics import covers

LOGIN = "{login}"
"""Placeholder in an account's patterns for the account's own login."""


class Account(NamedTuple):
    """A login with its passcode and its permissions."""

    login: str
    passcode_digest: bytes
    """SHA-256 of the passcode."""
    may_send: tuple[str, ...] = ()
    """Patterns (topics.py) in which `{login}` stands for the login."""
    may_subscribe: tuple[str, ...] = ()
    """Patterns, as in `may_send`."""
    frames: float | None = None
    """Maximum number of frames per second, or None for no limit."""

    def allows(self, patterns: tuple[str, ...], wanted: str) -> bool:
        """Return True if one of `patterns`, taken from this account, covers `wanted`."""
        return any(covers(pattern.replace(LOGIN, self.login), wanted) for pattern in patterns)


def new_passcode() -> str:
    """Return a random passcode. It cannot be guessed, so storing a fast digest of it is safe."""
    return secrets.token_urlsafe(32)


def digest_of_passcode(passcode: str) -> bytes:
    """Return the digest of a passcode that an account stores."""
    return hashlib.sha256(passcode.encode("utf-8", "surrogateescape")).digest()


class Accounts:
    """All accounts of one broker."""

    def __init__(self, accounts: Iterable[Account] = ()) -> None:
        self._accounts = {account.login: account for account in accounts}

    def add(self, account: Account) -> None:
        """Add an account, replacing any that has the same login."""
        self._accounts[account.login] = account

    def remove(self, login: str) -> None:
        """Prevent further logins; existing connections stay open until the broker closes them."""
        self._accounts.pop(login, None)

    def verify(self, login: str, passcode: str) -> Account | None:
        """Return the account if the login exists and the passcode matches."""
        account = self._accounts.get(login)
        stored = account.passcode_digest if account else bytes(32)
        is_right = hmac.compare_digest(stored, digest_of_passcode(passcode))
        return account if is_right else None
