"""Controllers for tests, with fake guests, shims and networks."""
