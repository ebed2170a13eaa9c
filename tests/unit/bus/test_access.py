"""Accounts of a broker."""

from boincvm.bus.access import Account, Accounts, digest_of_passcode, new_passcode


def test_only_the_right_passcode() -> None:
    passcode = new_passcode()
    account = Account("guest", digest_of_passcode(passcode))
    accounts = Accounts([account])
    assert accounts.verify("guest", passcode) is account
    assert accounts.verify("guest", passcode + "x") is None
    assert accounts.verify("guest", "") is None
    assert accounts.verify("other", passcode) is None
    accounts.remove("guest")
    assert accounts.verify("guest", passcode) is None


def test_no_passcode_fits_an_account_that_is_not_there() -> None:
    assert Accounts().verify("", "") is None
    assert Accounts().verify("a", "\udcff") is None


def test_passcodes_differ() -> None:
    assert len({new_passcode() for _ in range(100)}) == 100


def test_patterns_with_the_login() -> None:
    account = Account("7", b"", may_send=("/topic/host.{login}", "/topic/news.*"))
    assert account.allows(account.may_send, "/topic/host.7")
    assert account.allows(account.may_send, "/topic/news.x")
    for other in ("/topic/host.8", "/topic/host.*", "/topic/news.x.y", "/topic/host.7.x"):
        assert not account.allows(account.may_send, other)
