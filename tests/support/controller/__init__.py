"""Controllers for tests, and guests, keepers and networks that are none."""
