"""Commands that guests are given, and what became of them."""
