"""Controllers for tests, and guests, shims and networks that are none."""
