"""Brokers for tests, and what is said to them."""
