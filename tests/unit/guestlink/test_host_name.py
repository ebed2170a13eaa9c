"""Host names of machines."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm.guestlink.host_name import LONGEST, host_name

LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("web", "web"),
        ("web.1", "web-1"),
        ("Fold_2026.a b", "Fold-2026-a-b"),
        ("--x--", "x"),
        ("12", "vm-12"),  # inet_aton(3) would take it for 0.0.0.12
        ("1.2", "1-2"),
        ("", ""),
        ("...", ""),
        ("é²", ""),
        ("a" * 62 + "." + "b", "a" * 62),
        ("7" * 99, "vm-" + "7" * 60),
    ],
)
def test_what_becomes_of_a_name(text: str, name: str) -> None:
    assert host_name(text) == name


@given(st.text(max_size=200))
def test_it_is_a_label_or_nothing(text: str) -> None:
    name = host_name(text)
    assert len(name) <= LONGEST
    assert not name or (LABEL.fullmatch(name) and not name.isdigit())
