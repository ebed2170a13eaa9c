"""Who may use a broker, and who may say and hear what there."""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from typing import NamedTuple

from boincvm.bus.topics import covers

LOGIN = "{login}"
"""In a pattern of an account's: the account's own login."""


class Account(NamedTuple):
    """may_send, may_subscribe: patterns (topics.py); `{login}` in them is the login.
    passcode_digest: SHA-256. frames: a second that are taken at most, None without a limit."""

    login: str
    passcode_digest: bytes
    may_send: tuple[str, ...] = ()
    may_subscribe: tuple[str, ...] = ()
    frames: float | None = None

    def allows(self, patterns: tuple[str, ...], wanted: str) -> bool:
        """Whether one of `patterns`, those of this account, covers `wanted`."""
        return any(covers(one.replace(LOGIN, self.login), wanted) for one in patterns)


def new_passcode() -> str:
    """One that cannot be guessed; so a fast digest is enough to keep of it."""
    return secrets.token_urlsafe(32)


def digest_of_passcode(passcode: str) -> bytes:
    """What an account keeps."""
    return hashlib.sha256(passcode.encode("utf-8", "surrogateescape")).digest()


class Accounts:
    """All that a broker knows."""

    def __init__(self, accounts: Iterable[Account] = ()) -> None:
        self._accounts = {account.login: account for account in accounts}

    def add(self, account: Account) -> None:
        """One with that login before is replaced."""
        self._accounts[account.login] = account

    def remove(self, login: str) -> None:
        """Nobody can log in with it any more; who has stays until the broker closes it."""
        self._accounts.pop(login, None)

    def verify(self, login: str, passcode: str) -> Account | None:
        """The account, if it is there and the passcode is its own."""
        account = self._accounts.get(login)
        kept = account.passcode_digest if account else bytes(32)
        is_right = hmac.compare_digest(kept, digest_of_passcode(passcode))
        return account if is_right else None
