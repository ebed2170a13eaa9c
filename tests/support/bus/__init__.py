"""Brokers for tests, and conversations with them."""
