"""What JSON can hold."""

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

LARGEST = (1 << 53) - 1
"""The largest whole number that every reader of JSON understands (RFC 8259, 6)."""
