"""Commands that guests are given, and their results."""
