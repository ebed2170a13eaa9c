"""Arbitrary input from other programs, well-formed or not."""

from hypothesis import strategies as some

ANYTHING = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
    max_leaves=6,
)
HUGE = 10**400
"""A number that JSON may hold, but no float."""
